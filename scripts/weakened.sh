#!/usr/bin/env bash
# Whether the tests of docs/threats.md bite: each file of tests/weakened takes one protection away in a copy of
# this tree, and the tests that it names must then fail, with the text of its `Says:` if it has one (root):
#   scripts/weakened.sh [WORD...]     those with a WORD in their name
set -euo pipefail

cd "$(dirname "$0")/.."
work=${CARGO_TARGET_DIR:-$PWD/target}/weakened
tree=$work/tree
mkdir -p "$work"
rm -rf "$tree"
mkdir "$tree"
git ls-files -z | tar --null --files-from=- --create | tar --extract --directory="$tree"
# Nothing above it is its repository.
export GIT_CEILING_DIRECTORIES=$work
# What a patch changes is little.
export CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=1

# What `tests` of the test program `program` came to is in $log; the status is cargo's.
log=$work/log
# One that hangs has not failed.
run() { (cd "$tree" && timeout 900 cargo test --locked --test "$program" -- --exact "${tests[@]}") >"$log" 2>&1 </dev/null; }

patches=()
for patch in tests/weakened/*.patch; do
  name=$(basename "$patch" .patch)
  [[ $# == 0 ]] && patches+=("$PWD/$patch")
  for word in "$@"; do [[ $name == *"$word"* ]] && patches+=("$PWD/$patch") && break; done
done
((${#patches[@]} > 0)) || { echo "no file of tests/weakened has $* in its name" >&2; exit 2; }

declare -A whole=()
for patch in "${patches[@]}"; do
  while read -r program name; do whole[$program]+=" $name"; done < <(sed -n 's/^Test: //p' "$patch")
done
for program in "${!whole[@]}"; do
  mapfile -t tests < <(tr ' ' '\n' <<<"${whole[$program]}" | sed '/^$/d' | sort -u)
  if ! run || grep -q '^SKIPPED ' "$log"; then
    tail -n 60 "$log" >&2
    echo "tests of $program fail or are skipped as it is" >&2
    exit 1
  fi
done

survived=0 broken=0
for patch in "${patches[@]}"; do
  git -C "$tree" apply "$patch"
  says=$(sed -n '1,/^$/s/^Says: //p' "$patch")
  while read -r program name; do
    tests=("$name")
    what="$(basename "$patch" .patch): $program::$name"
    if run; then
      echo "SURVIVED $what"
      survived=$((survived + 1))
    elif ! grep -qF "test $name ... FAILED" "$log"; then
      tail -n 40 "$log"
      echo "BROKEN   $what: it did not run"
      broken=$((broken + 1))
    elif ! grep -qF -- "$says" "$log"; then
      tail -n 40 "$log"
      echo "BROKEN   $what: it fails, and not with: $says"
      broken=$((broken + 1))
    else
      echo "fails    $what"
    fi
  done < <(sed -n 's/^Test: //p' "$patch")
  git -C "$tree" apply --reverse "$patch"
done
if ((survived + broken)); then
  echo "$survived tests do not notice what was taken away, $broken did not run or fail with another text" >&2
  exit 1
fi
