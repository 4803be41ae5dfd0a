#!/usr/bin/env bash
# Installs an OpenTelemetry Collector that takes traces over OTLP and writes them to a file, and prints the program's
# path. The collector's own builder writes its source, which is compiled in some minutes.
set -euo pipefail

version=0.165.0
here=$(cd "$(dirname "$0")" && pwd)
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/otelcol-$version
program=$dir/otelcol
collector=go.opentelemetry.io/collector
receiver=$collector/receiver/otlpreceiver
exporter=github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter
if [[ ! -x $program ]]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  builder=$("$here/install-go-tool.sh" "$version" "$collector/cmd/builder")
  go=$("$here/install-go.sh")/go
  new=$(mktemp -d "$dir/new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  cat >"$new/manifest.yaml" <<EOF
dist:
  name: otelcol
  output_path: $new/source
  go: $go
receivers:
  - gomod: $receiver v$version
exporters:
  - gomod: $exporter v$version
EOF
  echo "install-otelcol: compiling the collector $version" >&2
  # Without `go mod tidy`, which wants what only the modules' tests need.
  "$builder" --config "$new/manifest.yaml" --skip-compilation --skip-get-modules >&2
  (
    cd "$new/source"
    export GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0
    "$go" mod init otelcol
    "$go" get "$collector/otelcol@v$version" "$receiver@v$version" "$exporter@v$version"
    "$go" build -trimpath -ldflags='-s -w' -o ../otelcol .
  ) >&2
  mv "$new/otelcol" "$program"
fi
echo "$program"
