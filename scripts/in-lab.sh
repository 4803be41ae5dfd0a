#!/usr/bin/env bash
# Runs a command as root in a mount namespace of its own, with a throw-away directory as /nix and,
# if asked, another root (see nix-root.sh), so that tests and the driver meet another Nix:
#   in-lab.sh [--nix-root DIR] [--dir DIR] [--bind PATH]... -- COMMAND ARG...
#   in-lab.sh --anchor --dir DIR [--nix-root DIR] [--bind PATH]...
# The project, the target directory, the cache, /tmp and every --bind PATH lie where they lie
# outside. /etc/nix/nix.conf turns the sandbox and all substituters off. The command has a pid
# namespace too: nothing that it starts outlives it. --dir holds /nix on disk and is the caller's
# to remove; without it a temporary directory is used and removed.
# An anchor prints its pid when the namespace is ready and keeps it until its standard input
# closes (so it dies with a crashed test): `nsenter -t PID -m -- COMMAND` joins it, root and all.
set -euo pipefail

usage() {
  grep '^#   in-lab' "$0" | sed 's/^# */usage: /' >&2
  exit 64
}

# Second stage, inside the new namespaces: enter DIR ROOT COMMAND... with the binds in $LAB_BINDS.
enter() {
  local dir=$1 lower=$2 root='' path
  shift 2
  mkdir -p "$dir/nix" "$dir/etc-nix" /nix /etc/nix
  printf '%s\n' 'sandbox = false' 'substituters =' \
    'experimental-features = nix-command flakes' >"$dir/etc-nix/nix.conf"
  if [[ $lower ]]; then
    # The cached root is the lower layer: it stays as it is, what is written goes to a tmpfs.
    mkdir -p "$dir/root"
    mount -t tmpfs -o mode=0755 lab "$dir/root"
    root=$dir/root/merged
    mkdir "$root" "$dir/root/upper" "$dir/root/work"
    mount -t overlay lab "$root" \
      -o "lowerdir=$lower,upperdir=$dir/root/upper,workdir=$dir/root/work"
    for path in /dev /sys; do mount --rbind "$path" "$root$path"; done
    while read -r path; do
      mkdir -p "$root$path"
      mount --bind "$path" "$root$path"
    done <<<"$LAB_BINDS"
    mkdir -p "$root/nix" "$root/etc/nix"
  fi
  mount --bind "$dir/nix" "$root/nix"
  mount --bind "$dir/etc-nix" "$root/etc/nix"
  mount -t proc proc "$root/proc"
  if [[ $root ]]; then
    local cwd=$PWD
    cd "$root"
    pivot_root . mnt
    cd "$cwd"
    umount -l /mnt
  fi
  if [[ $1 == --anchor ]]; then
    echo $$
    exec cat >/dev/null
  fi
  # Not exec: this shell is the namespace's init and reaps what the command leaves behind.
  "$@" || exit $?
  exit 0
}

if [[ ${1-} == --enter ]]; then
  shift
  enter "$@"
fi

project=$(realpath "$(dirname "$0")/..")
binds=(/tmp "$project")
anchor='' root='' dir=''
while (($#)); do
  case $1 in
    --nix-root) root=$(realpath -e "$2") && shift 2 ;;
    --dir) mkdir -p "$2" && dir=$(realpath -e "$2") && shift 2 ;;
    --bind) binds+=("$(realpath -e "$2")") && shift 2 ;;
    --anchor) anchor=yes && shift ;;
    --) shift && break ;;
    *) usage ;;
  esac
done
((EUID == 0)) || { echo "in-lab: mounting needs root" >&2; exit 1; }
for path in "${CARGO_TARGET_DIR:-}" "${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}" "$dir"; do
  [[ ! -d $path ]] || binds+=("$(realpath "$path")")
done
LAB_BINDS=$(printf '%s\n' "${binds[@]}")
export LAB_BINDS
self=$(realpath "$0")

if [[ $anchor ]]; then
  [[ $dir && $# -eq 0 ]] || usage
  exec unshare -m --propagation private "$self" --enter "$dir" "$root" --anchor
fi
(($#)) || usage
if [[ ! $dir ]]; then
  dir=$(mktemp -d "${TMPDIR:-/tmp}/nix-csi-lab.XXXXXX")
  chmod 755 "$dir" # the nixbld users go through it
  trap 'rm -rf --one-file-system "$dir"' EXIT
fi
unshare -m --propagation private -p -f --kill-child "$self" --enter "$dir" "$root" "$@" <&0 &
child=$!
trap 'kill -KILL $child' HUP INT TERM
status=0
wait "$child" || status=$?
exit "$status"
