#!/usr/bin/env bash
# Takes down what up.sh has started, whole or half:
#   scripts/cluster/down.sh DIR
# The namespaces go with their first process, and with them all mounts. Fails if a process, an
# interface or a cgroup is left. The logs stay in DIR/log.
set -euo pipefail

dir=$(realpath "${1:?usage: down.sh DIR}")
interface=nixcsi-e2e

for name in init unshare; do
  if [[ -e $dir/$name.pid ]]; then
    pid=$(<"$dir/$name.pid")
    kill -KILL "$pid" 2>/dev/null || true
    for ((n = 0; n < 200; n++)); do
      [[ -d /proc/$pid ]] || break
      sleep 0.05
    done
  fi
done
ip link del "$interface" 2>/dev/null || true
cgroups() { find /sys/fs/cgroup -maxdepth 2 \( -name kubepods -o -name k8s.io \) -type d; }
for ((n = 0; n < 50; n++)); do
  [[ $(cgroups) ]] || break
  # A cgroup's processes may take a moment to be gone.
  cgroups | while read -r group; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
  sleep 0.1
done
rm -f "$dir"/{init,unshare}.pid
left=$(cgroups; ip -o link show "$interface" 2>/dev/null || true; pgrep -af "$dir/etc" || true)
if [[ $left ]]; then
  printf 'down: this is left:\n%s\n' "$left" >&2
  exit 1
fi
