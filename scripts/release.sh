#!/usr/bin/env bash
# Makes the files of a release in a directory:
#   scripts/release.sh DIR                the binary of this machine's architecture, and its SBOM in CycloneDX
#   scripts/release.sh DIR --finish TAG   what has no architecture: the chart, the rendered manifests, and the
#                                         checksums of all that is in DIR
# A tag that is not the version of the crate and the chart is refused.
set -euo pipefail

usage() {
  echo 'usage: release.sh DIR [--finish TAG]' >&2
  exit 64
}
(($# == 1)) || [[ $# == 3 && $2 == --finish ]] || usage
dir=$(realpath -m "$1")
cd "$(dirname "$0")/.."

if (($# == 3)); then
  version=$(scripts/release-version.sh "$3")
  mkdir -p "$dir"
  "$(scripts/install-helm.sh)" package deploy/chart --version "$version" --app-version "$version" \
    --destination "$dir" >&2
  for manifests in default cache; do
    name=nix-csi-$manifests
    install -m 644 "deploy/manifests/$manifests/nix-csi.yaml" "$dir/${name%-default}.yaml"
  done
  cd "$dir"
  # Not of itself, when it is made again.
  rm -f SHA256SUMS
  sha256sum -- nix-csi* >SHA256SUMS
  cat SHA256SUMS
  exit
fi

mkdir -p "$dir"
arch=$(uname -m)
binary=$(scripts/release-build.sh)
install -m 755 "$binary" "$dir/nix-csi-$arch-linux"

# What of Cargo.lock is in this binary; the program writes beside Cargo.toml.
program=$(scripts/install-cargo-cyclonedx.sh)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) "$program" cyclonedx --format json --spec-version 1.5 \
  --all --no-build-deps --target "$arch-unknown-linux-gnu" --override-filename "nix-csi-$arch-linux.cdx" >&2
mv "nix-csi-$arch-linux.cdx.json" "$dir/"
