#!/usr/bin/env bash
# A stage on several machines, started by hand on each of them, in the same folder of a shared file system:
#
#   HEAD=node1 NODE=0 launch/torchrun.sh stages/ppo.py engine=zero2     # on node1, which the others meet
#   HEAD=node1 NODE=1 launch/torchrun.sh stages/ppo.py engine=zero2     # on node2
#
# NODES: how many machines. PROCESSES: how many processes on each, one a GPU. PORT: where they meet; open between them.
set -euo pipefail

: "${HEAD:?the name or address of the first machine, as the others reach it}"
: "${NODE:?the number of this machine, from 0}"
NODES=${NODES:-2}
PROCESSES=${PROCESSES:-8}
PORT=${PORT:-29500}
[ "$#" -ge 1 ] || { echo "usage: HEAD=HOST NODE=NUMBER $0 stages/NAME.py [key=value ...]" >&2; exit 2; }

cd "$(dirname "$0")/.."
# The settings, and so the books, name the number of all processes.
# The module is torchrun with time for who is asked to stop to save his state.
exec python -m rlhf.runtime.launch --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$PROCESSES" \
  --master_addr "$HEAD" --master_port "$PORT" "$@" "engine.processes=$((NODES * PROCESSES))"
