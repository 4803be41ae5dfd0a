#!/usr/bin/env bash
# The driver in a cluster of kind, from an image and the project's chart:
#   scripts/kind.sh IMAGE.tar
# IMAGE.tar is what `docker save` writes, of this machine's architecture. Makes a cluster of one node, installs the
# chart, runs `nix-csi check` and a pod that runs what its volume has built, uninstalls, and takes the cluster down
# again, also on failure; KEEP=1 leaves it. It needs Docker and a Go (or Python, to get one); kind and Helm are
# compiled from their Go modules, the nodes' image is pinned by kind, and kubectl is the node's. The machine's
# kubeconfig is left alone. `make e2e` has a cluster without Docker, and more tests. Run with stand-ins for Docker, kind
# and Helm only, not yet as a whole (docs/ci.md).
set -euo pipefail

usage() {
  echo 'usage: kind.sh IMAGE.tar' >&2
  exit 64
}
(($# == 1)) || usage
[[ -f $1 ]] || { echo "kind: no such file: $1" >&2; exit 64; }
archive=$(realpath "$1")
cd "$(dirname "$0")/.."
docker info >/dev/null 2>&1 || { echo "kind: Docker does not answer: see 'docker info'" >&2; exit 1; }

cluster=nix-csi-$$ node=nix-csi-$$-control-plane
phase='' made='' kind=''
phase() {
  phase=$1
  echo "=== $phase"
}
kubectl() { docker exec -i "$node" kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"; }
show() {
  echo "--- $1"
  shift
  timeout 20 docker exec "$node" kubectl --kubeconfig /etc/kubernetes/admin.conf "$@" || true
}
dir=$(mktemp -d "${TMPDIR:-/tmp}/nix-csi-kind.XXXXXX")
finish() {
  local status=$?
  trap - EXIT
  if ((status)) && [[ $made ]]; then
    {
      show pods get pods -A -o wide
      show events get events -A --sort-by=.lastTimestamp
      show "the driver's log" -n nix-csi logs daemonset/nix-csi-node --tail=100
      show "the driver's log before" -n nix-csi logs daemonset/nix-csi-node --tail=100 --previous
    } >&2 2>&1
  fi
  ((status == 0)) || echo "=== failed: $phase (exit status $status)" >&2
  if [[ ${KEEP-} && $made ]]; then
    echo "the cluster stays; to take it down: $kind delete cluster --name $cluster"
  elif [[ $kind ]] && ! "$kind" delete cluster --name "$cluster" --kubeconfig "$dir/kubeconfig"; then
    echo "kind: the cluster $cluster is left" >&2
    ((status)) || status=1
  fi
  rm -rf "$dir"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

phase 'installing kind and Helm'
program=$(scripts/install-kind.sh)
helm=$(scripts/install-helm.sh)

phase 'loading the image'
loaded=$(docker load --input "$archive")
image=$(sed -n 's/^Loaded image: //p' <<<"$loaded" | head -n 1)
[[ $image == *:* ]] || { echo "kind: an image without a name: $loaded" >&2; exit 1; }

phase 'starting the cluster'
kind=$program
"$kind" create cluster --name "$cluster" --kubeconfig "$dir/kubeconfig" --wait 180s
made=1
"$kind" load image-archive "$archive" --name "$cluster"

phase 'installing the driver'
# A Nix that asks nobody, and busybox for the pod's build.
cat >"$dir/values.yaml" <<YAML
image: {repository: "${image%:*}", tag: "${image##*:}", pullPolicy: Never}
node:
  env:
    NIX_CSI_NIX_OPTIONS: "substituters=\nsandbox-paths=/bin/busybox"
YAML
in_cluster=(--kubeconfig "$dir/kubeconfig" --namespace nix-csi)
"$helm" install nix-csi deploy/chart "${in_cluster[@]}" --create-namespace --values "$dir/values.yaml" \
  --wait --timeout 180s

# Helm does not wait for the last node in ten, which is the only one here.
kubectl -n nix-csi rollout status daemonset/nix-csi-node --timeout=180s

phase 'nix-csi check'
# The image's own, in the cluster's network.
"$kind" get kubeconfig --internal --name "$cluster" >"$dir/internal"
docker run --rm --network kind --volume "$dir/internal:/kubeconfig:ro" "$image" \
  check --kubeconfig /kubeconfig --all-nodes --timeout 120s

phase 'a pod with a nixExpr'
kubectl apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: hello, namespace: default}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: $image
      imagePullPolicy: Never
      command: [/nix/var/result/bin/hello]
      volumeMounts: [{name: nix, mountPath: /nix}]
  volumes:
    - name: nix
      csi:
        driver: nix.csi.store
        readOnly: true
        volumeAttributes:
          nixExpr: |
            derivation {
              name = "hello";
              system = builtins.currentSystem;
              builder = "/bin/busybox";
              args = [ "sh" "-euc" ''
                /bin/busybox mkdir -p \$out/bin
                printf '#!/bin/sh\necho hello from a volume\n' > \$out/bin/hello
                /bin/busybox chmod +x \$out/bin/hello
              '' ];
            }
YAML
if ! kubectl wait pod/hello --for=jsonpath='{.status.phase}'=Succeeded --timeout=120s; then
  kubectl describe pod hello >&2
  exit 1
fi
said=$(kubectl logs hello)
[[ $said == 'hello from a volume' ]] || { echo "kind: the pod said: $said" >&2; exit 1; }
# While there is a driver that takes its volume away.
kubectl delete pod hello --timeout=60s

phase 'uninstalling'
"$helm" uninstall nix-csi "${in_cluster[@]}" --wait --timeout 120s
left=$(kubectl get csidrivers,daemonsets --all-namespaces -l app.kubernetes.io/name=nix-csi -o name)
[[ ! $left ]] || { echo "kind: this is left: $left" >&2; exit 1; }

phase 'taking it down'
