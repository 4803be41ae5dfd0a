#!/usr/bin/env bash
# Runs a program on the node of a cluster, in its namespaces and its root:
#   scripts/cluster/on-node.sh DIR COMMAND ARG...
set -euo pipefail

pid=$(<"$1/init.pid")
shift
exec nsenter -t "$pid" -m -n -p -u -r -w -- /usr/bin/env -i \
  PATH=/opt/kubernetes:/usr/sbin:/usr/bin:/sbin:/bin "$@"
