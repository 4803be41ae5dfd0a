#!/usr/bin/env bash
# Runs the tests, built here, inside labs with another suite's Nix: scripts/other-nix.sh SUITE...
# Closes with one line, `N passed, N failed`, over all of them.
set -euo pipefail

cd "$(dirname "$0")/.."
(($#)) || { echo "usage: other-nix.sh trixie|sid..." >&2; exit 64; }
scripts/install-nix.sh
mapfile -t binaries < <(cargo test --locked --no-run --lib --bins --tests --message-format json |
  sed -n 's/.*"test":true},"features":.*"executable":"\([^"]*\)".*/\1/p')
((${#binaries[@]})) || { echo "other-nix: the tests do not build" >&2; exit 1; }

log=${CARGO_TARGET_DIR:-target}/other-nix.log
: >"$log"
status=0
for suite in "$@"; do
  root=$(scripts/nix-root.sh "$suite")
  for binary in "${binaries[@]}"; do
    echo "--- $suite: ${binary##*/}" | tee -a "$log"
    scripts/in-lab.sh --nix-root "$root" -- "$binary" 2>&1 </dev/null | tee -a "$log" || status=$?
  done
done
read -r passed failed < <(awk -f scripts/count.awk "$log")
echo
echo "$passed passed, $failed failed"
exit "$status"
