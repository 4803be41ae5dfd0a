#!/usr/bin/env bash
# Installs cargo-cyclonedx into a directory left on the machine and prints the program's path. It is
# compiled, in some minutes, with the versions of its own lock file.
set -euo pipefail

version=0.5.9
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/cargo-cyclonedx-$version
program=$dir/bin/cargo-cyclonedx
if [[ ! -x $program ]]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  echo "install-cargo-cyclonedx: compiling cargo-cyclonedx $version" >&2
  cargo install cargo-cyclonedx --version "$version" --locked --root "$dir" >&2
fi
echo "$program"
