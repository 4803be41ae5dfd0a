#!/usr/bin/env bash
# Does what the README and docs/get-started.md tell a newcomer to do on a machine of their own, command by command
# (scripts/follow.py), on a fresh Debian with Rust, Make, Git and a C compiler, and a fresh clone:
#   scripts/newcomer.sh [SUITE]          trixie if not given
# The machine is a directory of Debian's (scripts/debian-root.sh) with namespaces of its own for mounts and processes;
# its network, kernel, devices and Rust are this machine's, as is Cargo's directory of crates. The first commands are
# `make demo` and `make test`, so it takes as long as they do on a clean machine, twenty minutes or more. A flake of the
# clone stands in for nixpkgs. What belongs to a cluster is followed in `make e2e`. Root.
set -euo pipefail

cd "$(dirname "$0")/.."
suite=${1:-trixie}
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
cargo_home=${CARGO_HOME:-$HOME/.cargo} rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
((EUID == 0)) || { echo 'newcomer: root makes the machine' >&2; exit 1; }

machine=$(scripts/debian-root.sh "$cache/newcomers/$suite-2" "$suite" ca-certificates gcc git libc6-dev make)
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/nix-csi-newcomer.XXXXXX")
trap 'rm -rf --one-file-system "$dir"' EXIT
# Root may look into a clone of somebody else's.
git -c safe.directory='*' clone -q . "$dir/clone"

# In namespaces of its own: everything that is started and mounted there goes with it.
enter() {
  local dir=$1 machine=$2 path
  mkdir -p "$dir"/{upper,work,root}
  mount -t overlay newcomer "$dir/root" -o "lowerdir=$machine,upperdir=$dir/upper,workdir=$dir/work"
  # The archive that this machine's apt uses, and how it gets there.
  cp -r /etc/apt/apt.conf.d/. "$dir/root/etc/apt/apt.conf.d/"
  for path in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    [[ ! -e $path ]] || cp -L "$path" "$dir/root$path"
  done
  for path in "$cargo_home" "$rustup_home" /dev /sys; do
    mkdir -p "$dir/root$path"
    mount --rbind "$path" "$dir/root$path"
  done
  # An overlay has no overlays above it, as what is mounted in /nix and /tmp needs.
  mkdir -p "$dir"/{nix,tmp,var-tmp} && chmod 1777 "$dir"/{tmp,var-tmp}
  mkdir -p "$dir/root"/{nix,clone}
  mount --bind "$dir/nix" "$dir/root/nix"
  mount --bind "$dir/tmp" "$dir/root/tmp"
  mount --bind "$dir/var-tmp" "$dir/root/var/tmp"
  mount --bind "$dir/clone" "$dir/root/clone"
  mount -t proc proc "$dir/root/proc"
  cd "$dir/root"
  pivot_root . mnt
  umount -l /mnt
  cd "$3"
  exec bash
}
# As a login of root there, with what this machine needs to reach the registries and nothing else. Its disk is this
# machine's too: what a second build would need takes 15 GB of it, and a node on a full disk says so and is not ready.
there=(HOME=/root TERM=dumb CARGO_HOME="$cargo_home" RUSTUP_HOME="$rustup_home" CARGO_INCREMENTAL=0
  cargo_home="$cargo_home" rustup_home="$rustup_home")
while IFS='=' read -r name value; do
  case ${name,,} in
    *_proxy | goproxy | gosumdb | gonosumdb | pip_index_url | pip_cert | ssl_cert_file | ssl_cert_dir) there+=("$name=$value") ;;
  esac
done < <(env)
path=$cargo_home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# follow DIRECTORY PAGE SECTION...
follow() {
  local directory=$1
  shift
  scripts/follow.py "$@" --replace "github:nixos/nixpkgs/nixos-25.11=path:/clone/tests/data/nixpkgs" -- \
    env -i "${there[@]}" PATH="$path" unshare -m -p -f --kill-child --propagation private \
    bash -euc "$(declare -f enter); enter \"\$@\"" enter "$dir" "$machine" "$directory"
}
follow /clone README.md nix-csi
# `make demo` has built it.
path=/clone/target/release:$path
# The stand-in's builds are a busybox's; real ones come from a cache.
there+=(NIX_CSI_NIX_OPTIONS=sandbox-paths=/bin/busybox)
follow /root README.md 'On one machine'
follow /root docs/get-started.md 'One machine'
