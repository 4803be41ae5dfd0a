#!/usr/bin/env bash
# Checks that the driver and its tests compile for aarch64 too, lints and all. Its standard library comes by rustup,
# and from Debian a C compiler for what has C in it (SQLite, ring).
set -euo pipefail

cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
if [[ $(uname -m) != aarch64 ]]; then
  rustup --quiet target add "$target"
  scripts/install-nix.sh gcc-aarch64-linux-gnu libc6-dev-arm64-cross
  export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
fi
cargo clippy --locked --all-targets --target "$target" -- -D warnings
