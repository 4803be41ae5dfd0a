#!/usr/bin/env bash
# Installs cargo-fuzz into a directory left on the machine and prints the program's path. It is
# compiled, in a minute or two, with the versions of its own lock file.
set -euo pipefail

version=0.13.2
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/cargo-fuzz-$version
program=$dir/bin/cargo-fuzz
if [[ ! -x $program ]]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  echo "install-cargo-fuzz: compiling cargo-fuzz $version" >&2
  cargo install cargo-fuzz --version "$version" --locked --root "$dir" >&2
fi
echo "$program"
