# Builds the image of each architecture, on Nix's remote builders where this machine is of another one, and
# pushes images and closures. Logins are those of skopeo and of Nix.
{ lib, writeShellScriptBin, skopeo, nix }:
writeShellScriptBin "nix-csi-push" ''
  set -euo pipefail
  if (($# < 1 || $# > 2)); then
    echo 'usage: nix-csi-push REGISTRY/NAME:TAG [BINARY-CACHE-URL]' >&2
    exit 64
  fi
  export PATH=${lib.makeBinPath [ skopeo nix ]}:$PATH
  [[ -e flake.nix ]] || { echo "nix-csi-push: run it in the project's root, which has flake.nix" >&2; exit 1; }
  build() { nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths "$1"; }
  for system in x86_64-linux aarch64-linux; do
    image=$(build ".#packages.$system.image")
    skopeo copy "docker-archive:$image" "docker://$1-''${system%-linux}"
    if [[ -n ''${2:-} ]]; then
      closure=$(build ".#packages.$system.node")
      nix --extra-experimental-features nix-command copy --to "$2" "$closure"
    fi
  done
''
