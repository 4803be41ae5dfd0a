#!/usr/bin/env bash
# Installs a program of the crates registry into a directory left on the machine and prints its path:
#   scripts/install-cargo-tool.sh NAME VERSION
# It is compiled, in some minutes, with the versions of its own lock file.
set -euo pipefail

name=$1 version=$2
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/$name-$version
program=$dir/bin/$name
if [[ ! -x $program ]]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  echo "install-$name: compiling $name $version" >&2
  cargo install "$name" --version "$version" --locked --root "$dir" >&2
fi
echo "$program"
