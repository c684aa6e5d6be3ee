#!/bin/sh
# A cluster of three nodes on loopback, until Ctrl-C:  three-nodes.sh [DIRECTORY [HOST]]  (see start-nodes.sh)
exec sh "$(dirname "$0")/start-nodes.sh" 3 "$@"
