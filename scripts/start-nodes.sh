#!/bin/sh
# Start a cluster of seatrial on loopback, one process a node, until Ctrl-C.
#
#   start-nodes.sh COUNT [DIRECTORY [HOST]]
#
# Node N listens on HOST.N (127.0.0.N: on Linux all of 127.0.0.0/8 is there), with the usual ports.  Its data is in
# DIRECTORY/nodeN and its log in DIRECTORY/nodeN.log; started again with the same directory, it has what it had.
# SEATRIAL: the command, if it is not `seatrial`.  Ends with status 1 when a node ends by itself.
set -u
count=$1
directory=${2:-cluster}
host=${3:-127.0.0}
seatrial=${SEATRIAL:-seatrial}

peers='' bootstrap='' nodes=''
for node in $(seq "$count"); do
  peers="$peers${peers:+,}$node@$host.$node:7101"
  bootstrap="$bootstrap${bootstrap:+,}$host.$node:9092"
done
mkdir -p "$directory" || exit 1

stop() {
  trap '' INT TERM
  for each in $nodes; do kill "${each#*:}" 2>/dev/null; done
  wait
  exit "$1"
}
trap 'stop 0' INT TERM

for node in $(seq "$count"); do
  # In a shell of its own, so that Ctrl-C reaches this script alone, which then ends the nodes.
  (trap '' INT; eval "exec $seatrial serve" \
    --node-id "$node" --peers "$peers" --data-dir '"$directory/node$node"' \
    --raft-addr "$host.$node:7101" --kafka-addr "$host.$node:9092" --http-addr "$host.$node:9644") \
    2>>"$directory/node$node.log" &
  nodes="$nodes $node:$!"
  echo "node $node  kafka $host.$node:9092  http http://$host.$node:9644  pid $!"
done
echo "bootstrap.servers=$bootstrap"
echo "Ctrl-C ends it."

while :; do
  for each in $nodes; do
    if ! kill -0 "${each#*:}" 2>/dev/null; then
      echo "node ${each%:*} ended; the end of its log, $directory/node${each%:*}.log:" >&2
      tail -n 3 "$directory/node${each%:*}.log" >&2
      stop 1
    fi
  done
  sleep 0.5
done
