#!/usr/bin/env bash
# Installs csi-sanity and prints the program's path.
set -euo pipefail

exec "$(dirname "$0")/install-go-tool.sh" 5.6.0 github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity
