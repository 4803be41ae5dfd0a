#!/usr/bin/env bash
# Makes the root directory of the cluster's node, if it is not there, and prints its name: Debian sid
# with containerd, runc, CNI's plugins and etcd. It is kept beside the other roots, 550 MB, and takes
# about a minute. sid, because pods with `hostUsers: false` need containerd 2 and runc 1.2.
set -euo pipefail

here=$(dirname "$0")
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/node-roots/sid-1
exec "$here/../debian-root.sh" "$dir" sid containerd runc containernetworking-plugins etcd-server \
  iproute2 nftables procps busybox-static
