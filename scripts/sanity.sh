#!/usr/bin/env bash
# Runs csi-sanity against the real driver, in a throw-away lab: builds, starts `nix-csi node` and a
# front with the controller that csi-sanity asks for volumes, waits until both answer, and runs the
# Identity and Node specs twice: on the driver's own socket, and through the front, where two more
# run. docs/csi-sanity.md lists the specs. Fails if one fails or if fewer ran than expected. The last
# line is `N passed, N failed`. NIX_CSI_PROGRAM is a driver that is built already.
set -euo pipefail

# Identity 3, NodeGetCapabilities 1, NodeGetInfo 1, publish 3, unpublish 3, stats 4; of the others
# each needs a capability that the driver does not have. Through the front also "should work" and
# "should be idempotent".
direct=15 fronted=17

cd "$(dirname "$0")/.."
if [[ ${1-} != --inside ]]; then
  scripts/install-nix.sh
  sanity=$(scripts/install-csi-sanity.sh)
  if [[ ${NIX_CSI_PROGRAM-} ]]; then
    NIX_CSI_PROGRAM=$(realpath -e "$NIX_CSI_PROGRAM")
    export NIX_CSI_PROGRAM
    cargo build --locked --example sanity_front
  else
    cargo build --locked --bin nix-csi --example sanity_front
  fi
  exec scripts/in-lab.sh -- "$PWD/scripts/sanity.sh" --inside "$sanity"
fi
sanity=$2
bin=${CARGO_TARGET_DIR:-target}/debug
driver=${NIX_CSI_PROGRAM:-$bin/nix-csi}

dir=$(mktemp -d "${TMPDIR:-/tmp}/nix-csi-sanity.XXXXXX")
pids=()
finish() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" || true; done
  rm -rf --one-file-system "$dir"
}
trap finish EXIT

store_path=$(nix-build --no-out-link tests/data/closures.nix 2>"$dir/build.log") || {
  cat "$dir/build.log" >&2
  exit 1
}
sockets=(--endpoint "unix://$dir/csi.sock" --admin-endpoint "unix://$dir/admin.sock")
"$driver" node "${sockets[@]}" --run-dir "$dir/run" --http 127.0.0.1:0 --node-id sanity \
  --nix-option sandbox=false >"$dir/node.log" 2>&1 &
pids+=($!)
"$bin/examples/sanity_front" "unix://$dir/front.sock" "unix://$dir/csi.sock" \
  "$store_path" >"$dir/front.log" 2>&1 &
pids+=($!)

answer() { "$driver" status "${sockets[@]}" >/dev/null 2>&1 && [[ -S $dir/front.sock ]]; }
for ((try = 0; ; try++)); do
  ! answer || break
  if ((try == 150)) || ! kill -0 "${pids[@]}" 2>/dev/null; then
    echo "sanity: the driver or the front did not start:" >&2
    tail -n 20 "$dir"/*.log >&2
    exit 1
  fi
  sleep 0.2
done

status=0 passed=0 failed=0
count() { grep -oE "[0-9]+ $1" "$dir/sanity.log" | tail -n 1 | cut -d' ' -f1; }
# specs SOCKET EXPECTED
specs() {
  "$sanity" -csi.endpoint "unix://$dir/$1" -csi.controllerendpoint "unix://$dir/front.sock" \
    -csi.mountdir "$dir/target" -csi.stagingdir "$dir/staging" \
    -ginkgo.focus '(Identity|Node) Service' -ginkgo.no-color 2>&1 | tee "$dir/sanity.log" || status=$?
  local ran
  ran=$(count Passed)
  if ((${ran:-0} < $2)); then
    echo "sanity: only ${ran:-0} of $2 specs passed on $1" >&2
    status=1
  fi
  passed=$((passed + ${ran:-0})) failed=$((failed + $(count Failed)))
}
specs csi.sock "$direct"
specs front.sock "$fronted"
if ((status)); then
  echo "--- the driver's log" >&2
  tail -n 50 "$dir/node.log" >&2
fi
left=$(grep -c " $dir/" /proc/self/mountinfo || true)
if ((left)); then
  echo "sanity: $left mounts are left" >&2
  status=1
fi
echo
echo "$passed passed, $failed failed"
exit "$status"
