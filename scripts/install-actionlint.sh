#!/usr/bin/env bash
# Installs actionlint into a directory left on the machine and prints the program's path. Go checks what it
# fetches against its public log of checksums.
set -euo pipefail

version=1.7.12
cd "$(dirname "$0")/.."
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
program=$cache/actionlint-$version/actionlint
if [[ ! -x $program ]]; then
  mkdir -p "$cache"
  exec 9>"$cache/actionlint-$version.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  go=$(scripts/install-go.sh)/go
  echo "install-actionlint: compiling actionlint $version" >&2
  GOTOOLCHAIN=local GOBIN=${program%/*} \
    "$go" install "github.com/rhysd/actionlint/cmd/actionlint@v$version" >&2
fi
echo "$program"
