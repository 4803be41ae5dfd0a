#!/usr/bin/env bash
# Installs a program of a Go module into a directory left on the machine and prints its path:
#   scripts/install-go-tool.sh VERSION PACKAGE [GO INSTALL OPTION...]
# PACKAGE is its import path, whose last part is the program's name. It is compiled, in a minute or some; Go checks
# what it fetches against its public log of checksums.
set -euo pipefail

version=$1 package=$2
shift 2
name=${package##*/}
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/$name-$version
program=$dir/$name
if [[ ! -x $program ]]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  go=$("$(dirname "$0")/install-go.sh")/go
  echo "install-$name: compiling $name $version" >&2
  GOTOOLCHAIN=local GOBIN=$dir "$go" install "$@" "$package@v$version" >&2
fi
echo "$program"
