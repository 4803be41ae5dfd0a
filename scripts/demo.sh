#!/bin/bash
# What nix-csi does, on one machine and without Kubernetes: starts a node, mounts a nixExpr, a flakeRef
# and a storePath into directories, runs a program from each in a root that has nothing else, shows
# times, inodes and metrics, and takes everything down again. Fails if anything is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ "$(id -u)" = 0 ] || { echo "demo: mounting needs root: run it as root" >&2; exit 1; }

scripts/install-nix.sh
say "building nix-csi"
cargo build --release
bin=$PWD/target/release/nix-csi

work=$(mktemp -d)
state=/nix/var/nix-csi-demo
http=127.0.0.1:19809
export CSI_ENDPOINT=unix://$work/csi.sock NIX_CSI_ADMIN_ENDPOINT=unix://$work/admin.sock
node=
finish() {
    status=$?
    [ -z "$node" ] || { kill "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; }
    [ $status = 0 ] || { echo "demo failed; the node's log:" >&2; cat "$work/node.log" >&2 || true; }
    rm -rf "$work" "$state"
    exit $status
}
trap finish EXIT

say "starting a node (its own nix-daemon, its own sockets; the log goes to a file)"
$bin node --run-dir "$work/run" --state-dir "$state" --http "$http" --keep-idle 0s \
    --nix-option substituters= \
    --nix-option "sandbox-paths=/bin/busybox" >"$work/node.log" 2>&1 &
node=$!
for _ in $(seq 200); do
    [ -S "$work/admin.sock" ] && $bin status -o json | grep -q '"health": "ready"' && break
    kill -0 "$node"
    sleep 0.05
done
$bin status

# A statically linked busybox is all that a build has here: there is no nixpkgs on this machine.
package() {
    cat <<NIX
let
  run = name: script: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/busybox";
    args = [ "sh" "-euc" script ];
  };
  busybox = run "busybox" "/bin/busybox mkdir -p \$out/bin; /bin/busybox cp /bin/busybox \$out/bin/busybox";
in run "hello-$1" ''
  /bin/busybox mkdir -p \$out/bin
  echo '#!\${busybox}/bin/busybox sh' > \$out/bin/hello
  echo 'echo "hello, I am $1; this is all I see of the store:"; \${busybox}/bin/busybox ls /nix/store' >> \$out/bin/hello
  /bin/busybox chmod +x \$out/bin/hello
''
NIX
}

# Each target is the /nix of an otherwise empty root, as it would be in a container.
for name in expression flake path again writable; do mkdir -p "$work/$name"; done
run() { chroot "$work/$1" /nix/var/result/bin/hello; }

say "nixExpr: built, presented, mounted"
$bin mount --expr "$(package expression)" "$work/expression/nix"
run expression

say "flakeRef: a local flake, copied into the store and locked by the caller"
mkdir "$work/my-flake"
system=$(uname -m)-linux
cat > "$work/my-flake/flake.nix" <<NIX
{ outputs = _: { packages.$system.default = $(package flake | sed "s/builtins.currentSystem/\"$system\"/"); }; }
NIX
(cd "$work/my-flake" && $bin mount --flake-ref . "$work/flake/nix")
run flake

say "storePath: cold (valid in the store, no view yet)"
expression=$($bin status -o json | sed -n 's/.*"root": "\(.*-hello-expression\)".*/\1/p' | head -n 1)
$bin unmount "$work/expression/nix"
base=${expression##*/}
for _ in $(seq 100); do # the idle view goes at once here, and with it all that was prepared
    ls "$state/views" | grep -q "^${base%%-*}" || break
    sleep 0.1
done
$bin mount --store-path "$expression" "$work/path/nix"
run path

say "storePath: warm (another volume of the same closure)"
$bin mount --store-path "$expression" "$work/again/nix"
run again

say "a writable volume: an overlay of its own over the same view"
$bin mount --store-path "$expression" "$work/writable/nix" --rw
echo "written in the volume" > "$work/writable/nix/store/new-file"
$bin status

say "files are the store's own: same inode, so the same page cache"
stat -c '%i  %n' "$expression/bin/hello" "$work/path/nix/store/$base/bin/hello"
[ "$(stat -c %i "$expression/bin/hello")" = "$(stat -c %i "$work/path/nix/store/$base/bin/hello")" ]
[ ! -e /nix/store/new-file ] && echo "and a writable volume's writes stay in the volume"

say "how long publishes took, as the node measured them"
grep ' published ' "$work/node.log" | sed -E 's/.*target=[^ ]*\/([a-z]+)\/nix source=([^ ]+) .*seconds=([0-9.]+)/\1: \2 in \3 s/'

say "metrics of each actor"
exec 3<>"/dev/tcp/${http%:*}/${http#*:}"
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
cat <&3 | grep -E '^nixcsi_actor_(alive|handle_seconds_(sum|count))'
exec 3<&-

say "taking everything down"
for name in path again writable flake; do $bin unmount "$work/$name/nix"; done
for _ in $(seq 100); do
    [ -z "$(ls "$state/views")" ] && break
    sleep 0.1
done
kill "$node"; wait "$node" || true
node=

left=0
if grep -F -e "$work" -e "$state" /proc/self/mountinfo; then echo "a mount is left" >&2; left=1; fi
if ls -A /nix/var/nix/gcroots/nix-csi-*/*/ 2>/dev/null | grep -E '^[0-9a-z]'; then echo "a root is left" >&2; left=1; fi
# Whatever ran for this node has its sockets' directory in its environment or arguments.
for process in /proc/[0-9]*; do
    [ "${process#/proc/}" != $$ ] || continue
    if { cat "$process/environ" "$process/cmdline"; } 2>/dev/null | grep -qF "$work/run"; then
        echo "a process is left: $(tr '\0' ' ' 2>/dev/null <"$process/cmdline")" >&2; left=1
    fi
done
[ $left = 0 ] && echo "no mount, no process and no root is left behind"
exit $left
