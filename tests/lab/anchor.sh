#!/bin/bash
# Pid 1 of a test's machine: a mount and pid namespace with a /nix of its own and, optionally, another
# root. Started by tests/lab through unshare(1); when it ends, everything in it ends and its mounts
# go. Arguments: the machine's directory, the directory of the binaries under test, and another root
# or nothing.
set -eu
dir=$1 binaries=$2 root=${3:-}
base=
if [ -n "$root" ]; then
    # The given root is shared and stays as it is: what is written goes to memory.
    mkdir -p "$dir/root"
    mount -t tmpfs -o mode=0755 lab "$dir/root"
    base=$dir/root/merged
    mkdir "$base" "$dir/root/upper" "$dir/root/work"
    mount -t overlay -o "lowerdir=$root,upperdir=$dir/root/upper,workdir=$dir/root/work" lab "$base"
    mkdir -p "$base/proc" "$base/nix" "$base$binaries" "$base$dir"
    mount --rbind /dev "$base/dev"
    mount --rbind /sys "$base/sys"
    mount --bind "$binaries" "$base$binaries"
    mount --bind "$dir" "$base$dir"
else
    mkdir -p /nix
fi
mount --bind "$dir/nix" "$base/nix"
mount -t proc proc "$base/proc"
# bash reaps what its machine leaves behind. Ready is who has the root that others join.
loop='touch "$0"; trap "exit 0" TERM; while :; do sleep 1000 & wait $! || :; done'
if [ -n "$root" ]; then
    # As a container has it: seen from another mount namespace, which Nix makes for itself, what lies in a
    # mere chroot has other names, and a collector would not know a file that a process has open.
    cd "$base"
    pivot_root . mnt
    umount -l /mnt
fi
exec /bin/bash -c "$loop" "$dir/ready"
