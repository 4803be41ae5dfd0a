#!/usr/bin/env bash
# Runs a command as root in a mount namespace of its own, with a throw-away directory as /nix and,
# if asked, another root (see nix-root.sh), so that tests and the driver meet another Nix:
#   in-lab.sh [--nix-root DIR] [--dir DIR] [--bind PATH]... -- COMMAND ARG...
#   in-lab.sh --anchor --dir DIR [--nix-root DIR] [--bind PATH]...
# In both the project, the target directory, /tmp and every --bind PATH lie where they lie outside.
# /etc/nix/nix.conf turns the sandbox and all substituters off. The command has a pid namespace
# too: nothing that it starts outlives it. --dir holds /nix on disk and stays the caller's to
# remove; without it a temporary directory is used and removed.
# An anchor prints its pid when the namespace is ready and keeps it until its standard input
# closes (so it dies with a crashed test): `nsenter -t PID -m -- COMMAND` joins it, with its root.
set -euo pipefail

usage() {
  sed -n '3,5s/^#   //p' "$0" >&2
  exit 64
}

# Second stage: inside the new mount namespace.
enter() {
  local root='' path
  mkdir -p "$LAB_DIR/nix" "$LAB_DIR/etc-nix" /nix /etc/nix
  printf '%s\n' 'sandbox = false' 'substituters =' \
    'experimental-features = nix-command flakes' >"$LAB_DIR/etc-nix/nix.conf"
  if [[ $LAB_ROOT ]]; then
    # The cached root is the lower layer: it stays as it is, what is written goes to a tmpfs.
    mkdir -p "$LAB_DIR/root"
    mount -t tmpfs -o mode=0755 lab "$LAB_DIR/root"
    root=$LAB_DIR/root/merged
    mkdir "$root" "$LAB_DIR/root/upper" "$LAB_DIR/root/work"
    mount -t overlay -o "lowerdir=$LAB_ROOT,upperdir=$LAB_DIR/root/upper,workdir=$LAB_DIR/root/work" \
      lab "$root"
    for path in /dev /sys "${LAB_BINDS[@]}"; do
      mkdir -p "$root$path"
      mount --rbind "$path" "$root$path"
    done
    mkdir -p "$root/nix" "$root/etc/nix"
  fi
  mount --bind "$LAB_DIR/nix" "$root/nix"
  mount --bind "$LAB_DIR/etc-nix" "$root/etc/nix"
  mount -t proc proc "$root/proc"
  if [[ $root ]]; then
    cd "$root"
    pivot_root . mnt
    exec env -C "$LAB_CWD" bash -c 'umount -l /mnt && "$@"' bash "${LAB_COMMAND[@]}"
  fi
  exec "${LAB_COMMAND[@]}"
}
