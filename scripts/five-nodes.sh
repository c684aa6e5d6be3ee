#!/bin/sh
# A cluster of five nodes on loopback, until Ctrl-C:  five-nodes.sh [DIRECTORY [HOST]]  (see start-nodes.sh)
exec sh "$(dirname "$0")/start-nodes.sh" 5 "$@"
