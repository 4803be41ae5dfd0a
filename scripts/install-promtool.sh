#!/usr/bin/env bash
# Prints the directory of Debian's Prometheus and promtool. They are unpacked, not installed: no service is started.
set -euo pipefail

dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/prometheus-2
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock 9
if [[ ! -d $dir ]]; then
  new=$(mktemp -d "$dir.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  # apt's own user downloads.
  chmod 777 "$new"
  # Newer Debians have promtool in a package of its own.
  fetch() { (cd "$new" && apt-get -qq download prometheus >&2 && { apt-get -qq download promtool || true; } 2>/dev/null); }
  echo 'install-promtool: fetching Prometheus from Debian' >&2
  fetch 2>/dev/null || { apt-get -qq update >&2 && fetch; }
  for package in "$new"/*.deb; do dpkg -x "$package" "$new/root"; done
  rm "$new"/*.deb
  [[ -x $new/root/usr/bin/promtool ]] || { echo 'install-promtool: Debian has none' >&2; exit 1; }
  chmod -R u=rwX,go=rX "$new"
  mv -T "$new" "$dir"
fi
echo "$dir/root/usr/bin"
