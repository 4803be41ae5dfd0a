#!/usr/bin/env bash
# Stops, starts or restarts one of a cluster's programs:
#   scripts/cluster/component.sh DIR stop|start|restart NAME
# A stop is a kill -9, and lasts until the start. A restart is by SIGTERM, and over when another one
# runs.
set -euo pipefail

dir=$1 verb=$2 name=$3
pid() { "$(dirname "$0")/on-node.sh" "$dir" pgrep -o -x "$name"; }
# Its name is cut by the kernel.
[[ ${#name} -le 15 ]] || name=${name:0:15}
case $verb in
  stop)
    touch "$dir/stopped/$3"
    "$(dirname "$0")/on-node.sh" "$dir" kill -9 "$(pid)"
    ;;
  start) rm -f "$dir/stopped/$3" ;;
  restart)
    old=$(pid)
    "$(dirname "$0")/on-node.sh" "$dir" kill "$old"
    for ((n = 0; n < 300; n++)); do
      new=$(pid || true)
      [[ ! $new || $new == "$old" ]] || exit 0
      sleep 0.1
    done
    echo "component: $3 did not come back" >&2
    exit 1
    ;;
  *)
    echo 'usage: component.sh DIR stop|start|restart NAME' >&2
    exit 64
    ;;
esac
