#!/usr/bin/env bash
# Starts a Kubernetes of one node and waits until it is ready:
#   scripts/cluster/up.sh DIR [IMAGE.tar]...
# All of it runs in namespaces of its own, on an overlay over a Debian root, with its state in DIR,
# which must not be on an overlay or a tmpfs. Nothing is installed on the machine but openssl and
# iproute2. The machine gets one interface, two routes, and cgroups named kubepods and k8s.io;
# down.sh takes all of that away. DIR/kubectl is a kubectl of this cluster. One cluster a machine.
# From the cache about 15 seconds; the first time see install-kubebox.sh and install-node-root.sh.
set -euo pipefail

here=$(realpath "$(dirname "$0")")
mkdir -p "${1:?usage: up.sh DIR [IMAGE.tar]...}"
dir=$(realpath "$1")
shift
node=e2e host=10.200.77.1 address=10.200.77.2 pods=10.244.0.0/16
services=10.96.0.0/16 service=10.96.0.1 interface=nixcsi-e2e

((EUID == 0)) || { echo "up: namespaces and mounts need root" >&2; exit 1; }
if [[ -e $dir/unshare.pid ]] || ip link show "$interface" >/dev/null 2>&1; then
  echo "up: a cluster is up already: take it down with scripts/cluster/down.sh DIR" >&2
  exit 1
fi
"$here/../install-nix.sh" openssl iproute2
kubernetes=$("$here/install-kubebox.sh")
root=$("$here/install-node-root.sh")

start=$SECONDS
say() { echo "up: $* ($((SECONDS - start)) s)" >&2; }
mkdir -p "$dir"/{etc,log,images,stopped,cni}
for image in "$@"; do ln -f "$image" "$dir/images/" 2>/dev/null || cp "$image" "$dir/images/"; done
"$here/pki.sh" "$dir" "$node" "$address" "$service"

# No CAP_SYS_RESOURCE, no hugetlb, no systemd: as in a container of a CI.
cat >"$dir/etc/containerd.toml" <<TOML
version = 3
oom_score = 0
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:e2e"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$dir/cni"
TOML
cat >"$dir/cni/10-e2e.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{"type": "bridge", "bridge": "cni0",
  "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]],
           "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
echo "nameserver $host" >"$dir/etc/resolv.conf"
cat >"$dir/etc/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $dir/pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet-serving.crt
tlsPrivateKeyFile: $dir/pki/kubelet-serving.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
featureGates: {KubeletInUserNamespace: true}
resolvConf: $dir/etc/resolv.conf
makeIPTablesUtilChains: false
maxPods: 200
kubeAPIQPS: 100
kubeAPIBurst: 200
imageMaximumGCAge: 0s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
nodeStatusUpdateFrequency: 2s
YAML
cat >"$dir/kubectl" <<SH
#!/bin/sh
exec $kubernetes/kubectl --kubeconfig $dir/etc/admin.kubeconfig "\$@"
SH
chmod +x "$dir/kubectl"

failed() {
  echo "up: $1" >&2
  tail -n 15 "$dir"/log/*.log >&2 || true
  "$here/down.sh" "$dir" >&2 || true
  exit 1
}
setsid unshare --mount --net --pid --uts --ipc --fork --kill-child --propagation private \
  "$here/node.sh" "$dir" "$root" "$kubernetes" "$node" "$address" "$host" "$services" "$service" \
  >"$dir/log/node.log" 2>&1 </dev/null &
echo $! >"$dir/unshare.pid"
# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    kill -0 "$(<"$dir/unshare.pid")" 2>/dev/null || failed "the node ended before $what"
    ((SECONDS < end)) || failed "waited in vain for $what"
    sleep 0.1
  done
}
in_namespaces() {
  local pid
  pid=$(cat "/proc/$(<"$dir/unshare.pid")"/task/*/children)
  pid=${pid%% *}
  [[ $pid && $(readlink "/proc/$pid/ns/net") != $(readlink /proc/self/ns/net) ]] || return 1
  echo "$pid" >"$dir/init.pid"
}
wait_for 20 'its namespaces' in_namespaces
ip link add "$interface" type veth peer name eth0 netns "$(<"$dir/init.pid")"
ip addr add "$host/24" dev "$interface"
ip link set "$interface" up
for range in "$pods" "$services"; do ip route replace "$range" via "$address"; done

wait_for 90 'the API server' "$dir/kubectl" get --raw /readyz
say 'the API server answers'
wait_for 120 'the node to be ready' "$dir/kubectl" wait --for=condition=Ready "node/$node" --timeout=1s
wait_for 60 'the default service account' "$dir/kubectl" get serviceaccount default
say 'the node is ready'
