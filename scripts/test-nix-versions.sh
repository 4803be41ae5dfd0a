#!/usr/bin/env bash
# Runs the suites that meet a real Nix once more with each newer version in Debian's archive, each in
# a root of its own (nix-root.sh makes it, once):
#   scripts/test-nix-versions.sh [SUITE]...       trixie and sid if none is named
# The machine's own version is what `cargo test` runs. Exits 1 if a version fails, after all ran.
set -euo pipefail

cd "$(dirname "$0")/.."
((EUID == 0)) || { echo "test-nix-versions: mounting needs root" >&2; exit 1; }
suites=("$@")
((${#suites[@]})) || suites=(trixie sid)
tests=(--test nix --test volume --test builds --test cache --test uploads --test security --test errors
  --test cli --test gc --test lent_daemon)

failed=()
for suite in "${suites[@]}"; do
  root=$(scripts/nix-root.sh "$suite")
  version=$(scripts/in-lab.sh --nix-root "$root" -- nix --version)
  echo "== $suite: $version"
  NIX_CSI_TEST_ROOT=$root cargo test --no-fail-fast "${tests[@]}" || failed+=("$suite ($version)")
done
((${#failed[@]} == 0)) || { echo "test-nix-versions: failed: ${failed[*]}" >&2; exit 1; }
