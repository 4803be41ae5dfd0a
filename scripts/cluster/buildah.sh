# Read by the scripts that make images, at the project's root: buildah with a storage that stays on the machine, one at
# a time. `build` is buildah with it, `save NAME:TAG OUT.tar` writes an image as a docker-archive.
# shellcheck shell=bash

scripts/install-nix.sh buildah
storage=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/buildah
mkdir -p "$storage"
exec 9>"$storage.lock"
flock 9
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
build() { buildah --root "$storage" --runroot "$run" "$@"; }
save() {
  rm -f "$2"
  build push -q "$1" "docker-archive:$2:$1"
}
