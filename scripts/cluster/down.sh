#!/usr/bin/env bash
# Takes down what up.sh has started in DIR, whole or half; what another one runs stays:
#   scripts/cluster/down.sh DIR
# The namespaces go with their first process, and with them all mounts and processes. Fails if
# anything is left nevertheless, and can then be run again. The logs stay in DIR/log.
set -euo pipefail

dir=$(realpath "${1:?usage: down.sh DIR}")
interface=nixcsi-e2e cgroup=nix-csi-e2e

# Written before anything is made.
[[ -e $dir/unshare.pid ]] || exit 0

space=''
for name in init unshare; do
  pid=$(cat "$dir/$name.pid" 2>/dev/null || true)
  # After a crash the number may be another process's; ours has DIR among its arguments.
  grep -qzxF "$dir" "/proc/${pid:-none}/cmdline" 2>/dev/null || continue
  [[ $name == unshare ]] || space=$(readlink "/proc/$pid/ns/pid" || true)
  kill -KILL "$pid" 2>/dev/null || true
  for ((n = 0; n < 200; n++)); do
    [[ -d /proc/$pid ]] || break
    sleep 0.05
  done
done
ip link del "$interface" 2>/dev/null || true
for ((n = 0; n < 50; n++)); do
  cgroups=$(find /sys/fs/cgroup -maxdepth 2 -name "$cgroup" -type d)
  [[ $cgroups ]] || break
  # A cgroup's processes may take a moment to be gone.
  ((n == 0)) || sleep 0.1
  while read -r group; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done <<<"$cgroups"
done

processes() {
  local process
  [[ $space ]] || return 0
  for process in /proc/[0-9]*; do
    [[ $(readlink "$process/ns/pid" 2>/dev/null) != "$space" ]] || echo "process ${process#/proc/}"
  done
}
left=$(
  processes
  ip -o link show "$interface" 2>/dev/null || true
  grep -F " $dir/" /proc/self/mountinfo || true
  echo "$cgroups"
)
if [[ $left ]]; then
  printf 'down: this is left:\n%s\n' "$left" >&2
  exit 1
fi
rm -f "$dir"/{init,unshare}.pid
