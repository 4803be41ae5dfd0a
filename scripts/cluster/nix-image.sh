#!/usr/bin/env bash
# Makes of the driver's image one as nix/image.nix makes it, without nixpkgs, into a docker-archive:
#   scripts/cluster/nix-image.sh OUT.tar NAME:TAG FROM:TAG
# FROM must have been made by image.sh. Its programs move from /usr/bin and /usr/sbin into an environment in /nix/store,
# registered in the image's database, with /nix/var/result a link to it; what they are linked with stays where Debian has
# it.
set -euo pipefail

out=$(realpath "${1:?usage: nix-image.sh OUT.tar NAME:TAG FROM:TAG}")
name=${2:?usage: nix-image.sh OUT.tar NAME:TAG FROM:TAG}
from=${3:?usage: nix-image.sh OUT.tar NAME:TAG FROM:TAG}
cd "$(dirname "$0")/../.."
. scripts/cluster/buildah.sh

# shellcheck disable=SC2016 # the container's own
move='
  made=$(mktemp -d)/environment
  mkdir -p $made/bin
  for program in nix-csi nix git ssh ssh-keygen sshd mkfs.ext4; do
    cp -L "$(command -v $program)" $made/bin/$program
  done
  for name in nix-build nix-daemon nix-instantiate nix-store; do ln -s nix $made/bin/$name; done
  # As in nixpkgs, the shell and the rest are busybox.
  cp /bin/busybox $made/bin/busybox
  for name in sh cat ls tar gzip mkdir readlink; do ln -s busybox $made/bin/$name; done
  environment=$(nix-store --add $made)
  ln -s "$environment" /nix/var/result
  mkdir -p /etc/nix
  # Debian'"'"'s Nix would start itself from /usr/bin.
  echo "build-hook = $environment/bin/nix __build-remote" >>/etc/nix/nix.conf

  # From here on nothing but the environment and busybox. Tests build with /bin/busybox, and sshd runs no cat
  # from /nix/store.
  cd /usr/bin
  busybox cp busybox /tmp/busybox
  /tmp/busybox find /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin -mindepth 1 -maxdepth 1 ! -name busybox \
    -exec /tmp/busybox rm -rf {} +
  /tmp/busybox ln -s "$environment/bin/sh" sh
  /tmp/busybox cp busybox cat
  /tmp/busybox rm -r "${made%/*}"
  /tmp/busybox rm /tmp/busybox'
container=$(build from --pull-never "$from")
log=$out.log
build run --isolation chroot --network host "$container" -- sh -euc "$move" >"$log" 2>&1 || {
  tail -n 30 "$log" >&2
  build rm "$container" >/dev/null
  exit 1
}
build config --entrypoint '["/nix/var/result/bin/nix-csi"]' --env PATH=/nix/var/result/bin \
  --env NIX_CSI_SSHD=/nix/var/result/bin/sshd "$container"
build commit -q "$container" "$name" >/dev/null
build rm "$container" >/dev/null
save "$name" "$out"
