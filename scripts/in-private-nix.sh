#!/bin/sh
# Runs a command in mount and pid namespaces of its own where /nix is the given empty directory, so that
# tests never touch the machine's store, and a collector sees no other process: that of Nix 2.8 aborts
# when it can't read of one that ends.
#
#   scripts/in-private-nix.sh DIR COMMAND [ARGUMENT…]
#
# Needs root. An empty /nix is made as a mount point if there is none.
set -eu
dir=$1
shift
[ -d /nix ] || mkdir -m 0755 /nix
# The inner shell gets everything as arguments; nothing is spliced into its text.
exec unshare --mount --pid --fork --kill-child --propagation private sh -eu -c '
    mount -t proc proc /proc
    mount --bind "$1" /nix
    shift
    exec "$@"
' in-private-nix "$dir" "$@"
