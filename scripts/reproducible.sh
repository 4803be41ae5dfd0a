#!/usr/bin/env bash
# Whether a release can be built again: builds the binary of the last commit twice, at two places, and
# compares. PROFILE is cargo's, or `release`, of which a build takes some minutes.
set -euo pipefail

cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/var/tmp}/nix-csi-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
commit=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH

sums=()
for place in a another/and-deeper; do
  mkdir -p "$work/$place"
  git archive "$commit" | tar -x -C "$work/$place"
  binary=$("$work/$place/scripts/release-build.sh")
  sums+=("$(sha256sum <"$binary" | cut -d' ' -f1)")
  echo "${sums[-1]}  $(stat -c %s "$binary") bytes, built in $place"
  # The next build has no use for the rest of this one.
  mv "$binary" "$work/${#sums[@]}"
  rm -rf "$work/$place/target"
done
if [[ ${sums[0]} != "${sums[1]}" ]]; then
  echo "two builds of $commit differ, first at: $(cmp "$work/1" "$work/2" || true)" >&2
  exit 1
fi
if grep -aqF "$work" "$work/1"; then
  echo "the binary names the place where it was built" >&2
  exit 1
fi
echo "two builds of $commit are the same"
