#!/usr/bin/env bash
# Prints the directory of Debian's Prometheus and promtool. They are unpacked, not installed: no service is started.
set -euo pipefail

dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/prometheus-1
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [[ ! -d $dir ]]; then
  new=$(mktemp -d "$dir.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  # apt's own user downloads.
  chmod 777 "$new"
  fetch() { (cd "$new" && apt-get -qq download prometheus >&2); }
  echo 'install-promtool: fetching Prometheus from Debian' >&2
  fetch 2>/dev/null || { apt-get -qq update >&2 && fetch; }
  dpkg -x "$new"/prometheus_*.deb "$new/root"
  rm "$new"/prometheus_*.deb
  chmod -R u=rwX,go=rX "$new"
  mv -T "$new" "$dir"
fi
echo "$dir/root/usr/bin"
