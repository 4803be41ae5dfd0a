#!/usr/bin/env bash
# Makes the files of a release in a directory: the binary, its SBOM in CycloneDX, and their checksums.
#   scripts/release.sh DIR
set -euo pipefail

dir=$(realpath -m "${1:?usage: release.sh DIR}")
cd "$(dirname "$0")/.."
mkdir -p "$dir"
binary=$(scripts/release-build.sh)
install -m 755 "$binary" "$dir/nix-csi-$(uname -m)-linux"

# What of Cargo.lock is in this binary; the program writes beside Cargo.toml.
program=$(scripts/install-cargo-cyclonedx.sh)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) "$program" cyclonedx --format json --spec-version 1.5 \
  --all --no-build-deps --target "$(uname -m)-unknown-linux-gnu" --override-filename nix-csi.cdx >&2
mv nix-csi.cdx.json "$dir/"
(cd "$dir" && sha256sum nix-csi* >SHA256SUMS && cat SHA256SUMS)
