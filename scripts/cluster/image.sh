#!/usr/bin/env bash
# Builds the driver's image from deploy/Containerfile, without any registry, into a docker-archive:
#   scripts/cluster/image.sh OUT.tar [NAME:TAG [REVISION]]
# The release binary must be there (make build). The base image is made here by debootstrap and
# carries the name that the Containerfile asks for; it and the layer with Debian's packages are left
# on the machine, so only the first time takes a minute.
set -euo pipefail

out=$(realpath "${1:?usage: image.sh OUT.tar [NAME:TAG [REVISION]]}")
name=${2:-localhost/nix-csi:e2e}
revision=${3:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
cd "$(dirname "$0")/../.."
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
base=docker.io/library/debian:forky-slim

. scripts/cluster/buildah.sh
slim='
  for part in doc man locale info; do
    rm -rf "/usr/share/$part"
    echo "path-exclude /usr/share/$part/*"
  done >/etc/dpkg/dpkg.cfg.d/slim'
# An archive that stands still is as good for a test.
still='echo "Acquire::Check-Valid-Until false;" >/etc/apt/apt.conf.d/still'

root=$(scripts/debian-root.sh "$cache/image-roots/forky" forky)
if ! build inspect --type image "$base" >/dev/null 2>&1; then
  container=$(build from scratch)
  build add -q "$container" "$root" / >/dev/null
  # As in Debian's own slim image: neither manuals nor translations.
  build run --isolation chroot "$container" -- sh -euc "$slim; $still"
  build config --cmd bash "$container"
  build commit -q "$container" "$base" >/dev/null
  build rm "$container" >/dev/null
fi
log=$out.log
build build --isolation chroot --network host --layers --pull-never \
  --label org.opencontainers.image.revision="$revision" -f deploy/Containerfile -t "$name" . >"$log" 2>&1 || {
  tail -n 30 "$log" >&2
  exit 1
}
save "$name" "$out"
# What earlier builds left; the layers of this one and its base stay.
build prune --force >/dev/null 2>&1 || true
