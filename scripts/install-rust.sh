#!/usr/bin/env bash
# On a machine of the public CI: the compiler that Cargo.toml names, and no newer one, since another compiler
# makes another binary.
set -euo pipefail

cd "$(dirname "$0")/.."
version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml).0
rustup toolchain install "$version" --profile minimal --component rustfmt,clippy --no-self-update
rustup default "$version"
