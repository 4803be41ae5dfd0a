#!/usr/bin/env bash
# Makes a root directory with another suite's Nix, to run the tests against it with in-lab.sh:
#   scripts/nix-root.sh trixie|sid        prints the directory, making it if it is not there
# It is kept in ${NIX_CSI_CACHE:-~/.cache/nix-csi}/nix-roots; a second argument names another
# place.
set -euo pipefail

suite=${1:?usage: nix-root.sh SUITE [DIR]}
dir=${2:-${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/nix-roots/$suite-4}
here=$(dirname "$0")
exec "$here/debian-root.sh" "$dir" "$suite" --finish "$here/build-users.sh" nix-bin e2fsprogs \
  busybox-static openssh-client openssh-server
