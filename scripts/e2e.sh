#!/usr/bin/env bash
# The driver in a real cluster, from the project's own chart and image: builds the image, starts a
# Kubernetes of one node on this machine, installs, runs tests/e2e, and takes everything down again.
#   scripts/e2e.sh [--short] [WORD]...
# With WORD only the tests that have it in their path; --short is what CI runs for each change. Says how
# long each part took; the last line is `N passed, N failed`. On a clean machine the first run compiles
# Kubernetes, CoreDNS and Helm (9 to 19 minutes) and makes two Debian roots (a minute each), which stay in the
# cache. The rest is in a directory below ${TMPDIR:-/var/tmp}, 2 GB, and goes at the end. KEEP=1 leaves
# the cluster up, and says how to use it and how to take it down. NIX_CSI_PROGRAM is a driver that is built already.
set -euo pipefail

cd "$(dirname "$0")/.."
words=("$@")
if [[ ${1-} == --short ]]; then
  words=(pods:: builds::a_pod startup:: users:: privileges:: "${@:2}")
fi

times=() phase='' since=$SECONDS
phase() {
  [[ ! $phase ]] || times+=("$phase: $((SECONDS - since)) s")
  phase=$1 since=$SECONDS
  echo "=== $phase"
}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/nix-csi-e2e.XXXXXX")
kubectl=$dir/kubectl
finish() {
  local status=$?
  trap - EXIT
  if ((status)) && [[ -x $kubectl ]]; then
    {
      echo '--- pods'; timeout 10 "$kubectl" get pods -A -o wide
      for more in '' --previous; do
        echo "--- the driver's log $more"
        timeout 10 "$kubectl" -n nix-csi logs daemonset/nix-csi-node --tail=60 $more
      done
      echo "--- the kubelet's log"; tail -n 20 "$dir/log/kubelet.log"
    } >&2 2>&1 || true
  fi
  phase 'taking it down'
  if [[ ${KEEP-} && -e $dir/init.pid ]]; then
    echo "the cluster stays: $kubectl get pods -A; to take it down:"
    echo "scripts/cluster/down.sh $dir && rm -rf $dir"
  elif scripts/cluster/down.sh "$dir"; then
    rm -rf --one-file-system "$dir"
  else
    status=1
  fi
  phase end
  printf '%s\n' "${times[@]}"
  echo
  echo "${passed:-0} passed, ${failed:-0} failed"
  exit "$status"
}
trap finish EXIT

phase 'building the driver'
scripts/install-nix.sh
if [[ ! ${NIX_CSI_PROGRAM-} ]]; then
  cargo build --locked --release
elif [[ ! $NIX_CSI_PROGRAM -ef target/release/nix-csi ]]; then
  install -D -m 755 "$NIX_CSI_PROGRAM" target/release/nix-csi
fi

phase 'building the image'
mkdir "$dir/archives"
scripts/cluster/image.sh "$dir/archives/driver.tar" localhost/nix-csi:e2e
# For a rollout.
scripts/cluster/image.sh "$dir/archives/next.tar" localhost/nix-csi:next next
# As Nix builds one.
scripts/cluster/nix-image.sh "$dir/archives/nix.tar" localhost/nix-csi:nix localhost/nix-csi:e2e
scripts/cluster/archive.py "$dir/archives/empty.tar" localhost/empty:e2e
scripts/cluster/archive.py "$dir/archives/pause.tar" localhost/pause:e2e \
  /bin/busybox=/bin/busybox --entrypoint /bin/busybox --entrypoint sleep --entrypoint 2147483647
scripts/cluster/archive.py "$dir/archives/busybox.tar" localhost/busybox:e2e \
  /bin/busybox=/bin/busybox '/bin/sh->busybox'

phase 'starting the cluster'
scripts/cluster/up.sh "$dir" "$dir"/archives/*.tar
phase 'installing the driver'
ln -s "$(scripts/install-helm.sh)" "$dir/helm"
"$dir/helm" --kubeconfig "$dir/admin.kubeconfig" install nix-csi deploy/chart --namespace nix-csi --create-namespace \
  --values tests/e2e/install/values.yaml --wait --timeout 120s >/dev/null

phase 'running the tests'
log=$dir/test.log status=0
NIX_CSI_E2E_DIR=$dir cargo test --locked --test e2e -- --test-threads=1 --show-output "${words[@]}" 2>&1 </dev/null |
  tee "$log" || status=$?
read -r passed failed < <(awk -f scripts/count.awk "$log")
if ((passed + failed == 0)); then
  echo "e2e: no test ran: none has '${words[*]}' in its path" >&2
  status=1
fi
exit "$status"
