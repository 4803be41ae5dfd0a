#!/usr/bin/env bash
# Makes sure of a Python that has matplotlib (from PyPI) in the cache, and prints its path.
set -euo pipefail

# Debian's python3-venv makes the directory.
venv=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/draw-1
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
if [[ ! -d $venv ]]; then
  trap 'rm -rf "$venv"' EXIT
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" --quiet install 'matplotlib>=3.9,<4' >&2
  trap - EXIT
fi
echo "$venv/bin/python"
