#!/usr/bin/env bash
# Prints the directory of the Prometheus operator's CustomResourceDefinitions, one file each, from its Go
# module; Go checks it against its public log of checksums.
set -euo pipefail

version=0.85.0
go=$("$(dirname "$0")/install-go.sh")/go
cd /
module=$(GOTOOLCHAIN=local GOFLAGS=-mod=mod "$go" mod download -json \
  "github.com/prometheus-operator/prometheus-operator@v$version")
echo "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])' <<<"$module")/example/prometheus-operator-crd"
