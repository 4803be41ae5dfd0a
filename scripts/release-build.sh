#!/usr/bin/env bash
# Builds the binary of a release and prints its path. What lies where on this machine does not get into it,
# so that the same commit, compiler and C compiler give the same bytes anywhere. PROFILE is cargo's, or
# `release`.
set -euo pipefail

cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')

# SQLite and ring are C; the standard library's sources are at /rustc unless the machine has them.
flags=(
  "--remap-path-prefix=$PWD=/build"
  "--remap-path-prefix=$cargo_home=/cargo"
  "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
)
export RUSTFLAGS="${flags[*]}"
export CFLAGS="-ffile-prefix-map=$PWD=/build -ffile-prefix-map=$cargo_home=/cargo"
export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$PWD/target TZ=UTC LC_ALL=C
if [[ ! ${SOURCE_DATE_EPOCH-} ]]; then
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export SOURCE_DATE_EPOCH
fi
cargo build --locked --profile "$profile" --bin nix-csi >&2
[[ $profile != dev ]] || profile=debug
echo "$CARGO_TARGET_DIR/$profile/nix-csi"
