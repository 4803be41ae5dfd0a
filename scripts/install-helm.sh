#!/usr/bin/env bash
# Installs Helm and prints the program's path. The first time it compiles for some minutes.
set -euo pipefail

# As its own Makefile says it of which Kubernetes it is.
of=helm.sh/helm/v3/pkg
flags="-s -w -X $of/lint/rules.k8sVersionMajor=1 -X $of/lint/rules.k8sVersionMinor=37"
flags+=" -X $of/chartutil.k8sVersionMajor=1 -X $of/chartutil.k8sVersionMinor=37"
export CGO_ENABLED=0
exec "$(dirname "$0")/install-go-tool.sh" 3.22.0 helm.sh/helm/v3/cmd/helm -trimpath -ldflags="$flags"
