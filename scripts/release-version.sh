#!/usr/bin/env bash
# Refuses a tag that is not the version of the crate and of the chart; prints the version:
#   scripts/release-version.sh vX.Y.Z
set -euo pipefail

tag=${1:?usage: release-version.sh vX.Y.Z}
cd "$(dirname "$0")/.."
crate=$(sed -n '/^\[package\]/,/^\[[^p]/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
chart=$(sed -n 's/^version: //p' deploy/chart/Chart.yaml)
app=$(sed -n 's/^appVersion: //p' deploy/chart/Chart.yaml)
if [[ $tag != "v$crate" || $crate != "$chart" || $crate != "$app" ]]; then
  echo "release-version: the tag is $tag, but Cargo.toml says $crate, and deploy/chart/Chart.yaml version $chart," \
    "appVersion $app" >&2
  exit 1
fi
echo "$crate"
