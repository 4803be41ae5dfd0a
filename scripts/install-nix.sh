#!/usr/bin/env bash
# Installs what the driver and its tests need from Debian: nix-bin (nix, nix-daemon, the nixbld
# users, an empty /nix), busybox-static (the shell of sandboxed builds) and whatever else is
# named as an argument; makes the account `nix` for ssh. Does nothing when all of it is there.
set -euo pipefail

packages=(nix-bin busybox-static "$@")
missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [[ $state == ii* ]] || missing+=("$package")
done
# A Nix that did not come from Debian is as good.
if command -v nix >/dev/null && command -v nix-daemon >/dev/null; then
  for i in "${!missing[@]}"; do [[ ${missing[i]} != nix-bin ]] || unset 'missing[i]'; done
fi
if ((${#missing[@]} == 0)); then
  # A machine that was set up for an earlier version of this.
  ((EUID)) || "$(dirname "$0")/build-users.sh"
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "install-nix: not a Debian machine: install these yourself: ${missing[*]}" >&2
  exit 1
fi
if ((EUID)); then
  echo "install-nix: not root: run 'sudo apt-get install ${missing[*]}' first, or this as root" >&2
  exit 1
fi

# apt waits for dpkg's lock by itself, but not for the one on the package lists.
apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null; }
update() {
  local try
  for try in 1 2 3 4; do
    apt update && return
    echo "install-nix: apt-get update failed (try $try of 4)" >&2
    sleep 10
  done
  echo "install-nix: going on with the package lists that are there" >&2
}
echo "install-nix: installing ${missing[*]}" >&2
update
apt install -y --no-install-recommends "${missing[@]}" >/dev/null
"$(dirname "$0")/build-users.sh"
nix --version >&2
