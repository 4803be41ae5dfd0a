#!/usr/bin/env bash
# Stops, starts or restarts one of a cluster's programs, by its name (kubelet, containerd, etcd,
# kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, coredns):
#   scripts/cluster/component.sh DIR stop|start|restart NAME
# A stop is a kill -9, and lasts until the start. A restart is by SIGTERM, after 5 s by SIGKILL (the API
# server would wait a minute for its clients), and over when another one runs.
set -euo pipefail

usage() {
  echo 'usage: component.sh DIR stop|start|restart NAME' >&2
  exit 64
}
(($# == 3)) || usage
dir=$1 verb=$2 name=$3
on_node() { "$(dirname "$0")/on-node.sh" "$dir" "$@"; }
# The kernel keeps 15 characters of a name.
pid() { on_node pgrep -o -x "${name:0:15}" || true; }
[[ -e $dir/log/$name.log ]] || { echo "component: no program of the cluster: $name" >&2; exit 64; }

case $verb in
  stop)
    touch "$dir/stopped/$name"
    # node.sh may have looked just before, and be about to start it.
    sleep 0.1
    old=$(pid)
    [[ ! $old ]] || on_node kill -9 "$old"
    ;;
  start) rm -f "$dir/stopped/$name" ;;
  restart)
    old=$(pid)
    [[ ! $old ]] || on_node kill "$old"
    for ((n = 0; n < 300; n++)); do
      new=$(pid)
      [[ ! $new || $new == "$old" ]] || exit 0
      [[ ! $new ]] || ((n != 50)) || on_node kill -9 "$old" || true
      sleep 0.1
    done
    echo "component: $name did not come back" >&2
    exit 1
    ;;
  *) usage ;;
esac
