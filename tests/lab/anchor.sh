#!/bin/bash
# Pid 1 of a test's machine: a mount and pid namespace with a /nix of its own and, optionally, another
# root. Started by tests/lab through unshare(1); when it ends, everything in it ends and its mounts
# go. Arguments: the machine's directory, the directory of the binaries under test, and another root
# or nothing.
set -eu
dir=$1 binaries=$2 root=${3:-}
base=
if [ -n "$root" ]; then
    base=$dir/root
    mkdir -p "$base"
    mount --rbind "$root" "$base"
    mkdir -p "$base/proc" "$base/nix"
    for shared in /dev /sys "$binaries" "$dir"; do
        mkdir -p "$base$shared"
        mount --rbind "$shared" "$base$shared"
    done
else
    mkdir -p /nix
fi
mount --bind "$dir/nix" "$base/nix"
mount -t proc proc "$base/proc"
# bash reaps what its machine leaves behind. Ready is who has the root that others join.
loop='touch "$0"; trap "exit 0" TERM; while :; do sleep 1000 & wait $! || :; done'
if [ -n "$root" ]; then
    exec chroot "$base" /bin/bash -c "$loop" "$dir/ready"
fi
exec /bin/bash -c "$loop" "$dir/ready"
