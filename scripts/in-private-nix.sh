#!/bin/sh
# Runs a command in a mount namespace of its own where /nix is the given empty directory, so that
# tests never touch the machine's store.
#
#   scripts/in-private-nix.sh DIR COMMAND [ARGUMENT…]
#
# Needs root. An empty /nix is made as a mount point if there is none.
set -eu
dir=$1
shift
[ -d /nix ] || mkdir -m 0755 /nix
# The inner shell gets everything as arguments; nothing is spliced into its text.
exec unshare --mount --propagation private sh -eu -c '
    mount --bind "$1" /nix
    shift
    exec "$@"
' in-private-nix "$dir" "$@"
