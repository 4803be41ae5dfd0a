#!/usr/bin/env bash
# Installs kind and prints the program's path. Which Kubernetes a cluster of it has is in it, by the digest of the
# nodes' image.
set -euo pipefail

exec "$(dirname "$0")/install-go-tool.sh" 0.33.0 sigs.k8s.io/kind
