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

python=$(scripts/install-draw.sh)
mkdir -p docs/dashboards
"$python" scripts/draw.py "$answers/answers.json" dashboards/*.json docs/dashboards
