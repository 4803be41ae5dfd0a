#!/usr/bin/env bash
# Makes a root directory with another suite's Nix, to run the tests against it with in-lab.sh:
#   scripts/nix-root.sh trixie|sid        prints the directory, making it if it is not there
# It is kept in ${NIX_CSI_CACHE:-~/.cache/nix-csi}/nix-roots/SUITE; a second argument names another
# place. debootstrap uses the archive that the machine's own apt uses. The directory appears under
# its name only when it is complete.
set -euo pipefail

suite=${1:?usage: nix-root.sh SUITE [DIR]}
dir=${2:-${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/nix-roots/$suite}
[[ $suite =~ ^[a-z]+$ ]] || { echo "nix-root: not a suite: $suite" >&2; exit 64; }

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
[[ $mirror ]] || { echo "nix-root: apt's sources name no archive for $codename" >&2; exit 1; }

# A mount namespace of its own: what is mounted here goes with it, also on failure. apt installs
# Nix, because debootstrap does not know in which order to configure what Nix depends on.
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf --one-file-system "$new"' EXIT
echo "nix-root: making $dir (about half a minute)" >&2
make_root() {
  export DEBIAN_FRONTEND=noninteractive
  debootstrap --variant=minbase "$suite" "$new" "$mirror"
  mount --bind /dev "$new/dev"
  mount -t proc proc "$new/proc"
  chroot "$new" apt-get install -y --no-install-recommends nix-bin busybox-static
  chroot "$new" apt-get clean
  chroot "$new" bash -s <"$here/build-users.sh"
}
export -f make_root
export here suite new mirror
if ! unshare -m --propagation private bash -euc make_root </dev/null >"$dir.log" 2>&1; then
  tail -n 20 "$dir.log" >&2
  exit 1
fi
rm -rf "$new"/var/lib/apt/lists/*
chmod 755 "$new" # mktemp's 0700 would shut out the nixbld users
mv -T "$new" "$dir"
echo "$dir"
