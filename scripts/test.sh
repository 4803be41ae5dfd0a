#!/usr/bin/env bash
# Runs the tests and closes with one line, `N passed, N failed`, over all of them:
#   scripts/test.sh [WORD]
# A test's path is <file in tests/, or nothing for a unit test>::<module>::<name>. With WORD, those
# with the word in their path run: all of tests/WORD.rs or tests/WORD/, and tests and modules of
# that name anywhere. That no test has it is an error. The whole output is in target/test.log.
set -euo pipefail

cd "$(dirname "$0")/.."
word=${1-}
log=${CARGO_TARGET_DIR:-target}/test.log
mkdir -p "$(dirname "$log")"
: >"$log"

# Both runs happen though the first fails.
status=0
run() { cargo test --locked --no-fail-fast "$@" 2>&1 </dev/null | tee -a "$log" || status=$?; }

if [[ ! $word ]]; then
  run
else
  whole=() rest=()
  for file in tests/*.rs tests/*/main.rs; do
    # Those of e2e need a cluster.
    [[ -e $file && $file != tests/e2e/* ]] || continue
    name=${file#tests/}
    name=${name%/main.rs}
    name=${name%.rs}
    if [[ $name == *"$word"* ]]; then whole+=("--test=$name"); else rest+=("--test=$name"); fi
  done
  run --lib --bins "${rest[@]}" -- "$word"
  ((${#whole[@]} == 0)) || run "${whole[@]}"
fi

read -r passed failed < <(awk -f scripts/count.awk "$log")
# A skip is a line of its own, written past the harness.
skipped=$(grep -c '^SKIPPED ' "$log" || true)
if ((passed + failed == 0 && status == 0)); then
  echo "no test has '$word' in its path" >&2
  status=1
fi
echo
echo "$passed passed, $failed failed$( ((skipped == 0)) || echo ", $skipped skipped")"
exit "$status"
