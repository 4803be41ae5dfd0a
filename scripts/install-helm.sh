#!/usr/bin/env bash
# Installs Helm into a directory left on the machine and prints the program's path. Go checks what it fetches
# against its public log of checksums. The first time it compiles for some minutes.
set -euo pipefail

version=3.22.0
cd "$(dirname "$0")/.."
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
program=$cache/helm-$version/helm
if [[ ! -x $program ]]; then
  mkdir -p "$cache"
  exec 9>"$cache/helm-$version.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  go=$(scripts/install-go.sh)/go
  echo "install-helm: compiling Helm $version" >&2
  # As its own Makefile says it of which Kubernetes it is.
  of=helm.sh/helm/v3/pkg
  flags="-s -w -X $of/lint/rules.k8sVersionMajor=1 -X $of/lint/rules.k8sVersionMinor=37"
  flags+=" -X $of/chartutil.k8sVersionMajor=1 -X $of/chartutil.k8sVersionMinor=37"
  CGO_ENABLED=0 GOTOOLCHAIN=local GOBIN=${program%/*} \
    "$go" install -trimpath -ldflags="$flags" "helm.sh/helm/v3/cmd/helm@v$version" >&2
fi
echo "$program"
