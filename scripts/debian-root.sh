#!/usr/bin/env bash
# Makes a root directory of Debian, if it is not there, and prints its name:
#   scripts/debian-root.sh DIR SUITE [--finish SCRIPT] [PACKAGE]...
# A minimal system of SUITE and the packages, without what they recommend; SCRIPT runs in it last.
# debootstrap uses the archive that the machine's own apt uses. The directory appears under its name
# only when it is complete; it takes half a minute, and a second per package or two. DIR.log is the log.
set -euo pipefail

usage() {
  echo 'usage: debian-root.sh DIR SUITE [--finish SCRIPT] [PACKAGE]...' >&2
  exit 64
}
(($# >= 2)) || usage
dir=$1 suite=$2 finish=
shift 2
if [[ ${1-} == --finish ]]; then
  finish=$(realpath -e "$2")
  shift 2
fi
[[ $suite =~ ^[a-z]+$ ]] || { echo "debian-root: not a suite: $suite" >&2; exit 64; }

here=$(realpath "$(dirname "$0")")
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [[ -d $dir ]]; then
  echo "$dir"
  exit 0
fi
"$here/install-nix.sh" debootstrap

# The archive of this machine's own suite; the security archive has no other suites' packages.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
  awk -v suite="$codename" '$1 == suite && $2 == "main" && !found { found = 1; print $3 }')
[[ $mirror ]] || { echo "debian-root: apt's sources name no archive for $codename" >&2; exit 1; }

# A mount namespace of its own: what is mounted here goes with it, also on failure. apt installs the
# packages, because debootstrap does not know in which order to configure what they depend on.
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf --one-file-system "$new"' EXIT
echo "debian-root: making $dir (about a minute)" >&2
make_root() {
  export DEBIAN_FRONTEND=noninteractive
  # An older debootstrap has no script for a suite that is newer.
  local script=/usr/share/debootstrap/scripts/$suite
  [[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid
  debootstrap --variant=minbase "$suite" "$new" "$mirror" "$script"
  mount --bind /dev "$new/dev"
  mount -t proc proc "$new/proc"
  # Nothing is to be started in a directory.
  printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
  chmod 755 "$new/usr/sbin/policy-rc.d"
  if (($#)); then
    chroot "$new" apt-get install -y --no-install-recommends "$@"
  fi
  chroot "$new" apt-get clean
  [[ ! $finish ]] || chroot "$new" bash -s <"$finish"
  rm "$new/usr/sbin/policy-rc.d"
}
export -f make_root
export finish suite new mirror
if ! unshare -m --propagation private bash -euc 'make_root "$@"' make_root "$@" </dev/null >"$dir.log" 2>&1; then
  tail -n 20 "$dir.log" >&2
  exit 1
fi
rm -rf "$new"/var/lib/apt/lists/*
chmod 755 "$new" # mktemp's 0700 would shut out the nixbld users
mv -T "$new" "$dir"
echo "$dir"
