#!/usr/bin/env bash
# Draws docs/dashboards/*.png: a cache and two nodes run under load for some minutes (the test `observed`, root), and
# each panel shows what a real Prometheus says of them.
#   scripts/draw-dashboards.sh [--again]     --again: from the answers of the last run
set -euo pipefail

cd "$(dirname "$0")/.."
[[ $# == 0 || $* == --again ]] || { echo 'usage: draw-dashboards.sh [--again]' >&2; exit 64; }
answers=${CARGO_TARGET_DIR:-$PWD/target}/observed
if [[ ${1-} != --again ]]; then
  NIX_CSI_FULL=1 NIX_CSI_OBSERVED=$answers cargo test --locked --test observed
fi

# Debian's python3-venv makes the directory, PyPI has the library.
venv=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/draw-1
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
if [[ ! -d $venv ]]; then
  trap 'rm -rf "$venv"' EXIT
  python3 -m venv "$venv"
  "$venv/bin/pip" --quiet install 'matplotlib>=3.9,<4'
  trap - EXIT
fi
mkdir -p docs/dashboards
"$venv/bin/python" scripts/draw.py "$answers/answers.json" dashboards/*.json docs/dashboards
