#!/usr/bin/env bash
# Starts a Kubernetes of one node and waits until it is ready:
#   scripts/cluster/up.sh DIR [IMAGE.tar]...
# All of it runs in namespaces of its own, on an overlay over a Debian root, with its state in DIR,
# which must not be on an overlay or a tmpfs. Nothing is installed on the machine but openssl and
# iproute2. The machine gets one interface, two routes, and cgroups below nix-csi-e2e; down.sh takes
# all of that away, and so does this script if it fails. DIR/kubectl is a kubectl of this cluster,
# DIR/admin.kubeconfig its configuration. One such cluster a machine; others are not in its way.
# From the cache about 15 seconds; the first time see what install-*.sh say.
set -euo pipefail

here=$(realpath "$(dirname "$0")")
mkdir -p "${1:?usage: up.sh DIR [IMAGE.tar]...}"
dir=$(realpath "$1")
shift
# Beside the ranges that clusters have if nobody says otherwise.
node=e2e host=10.200.78.1 address=10.200.78.2 pods=10.245.0.0/16
services=10.97.0.0/16 service=10.97.0.1 interface=nixcsi-e2e cgroup=nix-csi-e2e

((EUID == 0)) || { echo "up: namespaces and mounts need root" >&2; exit 1; }
case $(stat -f -c %T "$dir") in
  overlayfs | tmpfs)
    echo "up: $dir is on $(stat -f -c %T "$dir"), where containerd can't unpack images" >&2
    exit 1
    ;;
esac
"$here/../install-nix.sh" openssl iproute2
# The node's processes inherit the lock, so that it goes when they do.
exec 9>/run/nix-csi-e2e.lock
if ! flock -n 9 || [[ -e $dir/unshare.pid ]] || ip link show "$interface" >/dev/null 2>&1; then
  echo "up: a cluster is up already: take it down with scripts/cluster/down.sh DIR" >&2
  exit 1
fi
kubernetes=$("$here/install-kubebox.sh")
coredns=$("$here/install-coredns.sh")
root=$("$here/install-node-root.sh")

start=$SECONDS
say() { echo "up: $* ($((SECONDS - start)) s)" >&2; }
# Of an earlier cluster in DIR.
rm -rf --one-file-system "$dir"/{state,upper,work,stopped,images,log}
mkdir -p "$dir"/{etc,log,images,stopped,cni}
for image in "$@"; do ln -f "$image" "$dir/images/" 2>/dev/null || cp "$image" "$dir/images/"; done
"$here/pki.sh" "$dir" "$node" "$address" "$service"
mv "$dir/etc/admin.kubeconfig" "$dir/"

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
# Each pod has a link of its own to the node. On a bridge the answers of a service's pod would pass
# kube-proxy's rules by, unless the machine has br_netfilter.
cat >"$dir/cni/10-e2e.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{"type": "ptp", "ipMasq": false,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pods"}]],
           "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
# CoreDNS listens on the node's own address: pods reach it by their default route, also while there
# is no kube-proxy, and it needs neither a Service nor an image.
cat >"$dir/etc/Corefile" <<COREFILE
cluster.local:53 {
  bind $address
  errors
  kubernetes {
    kubeconfig $dir/admin.kubeconfig
    pods insecure
  }
}
COREFILE
# For pods that don't use the cluster's DNS; nobody answers there.
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
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
featureGates: {KubeletInUserNamespace: true}
clusterDNS: [$address]
clusterDomain: cluster.local
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
exec $kubernetes/kubectl --kubeconfig $dir/admin.kubeconfig "\$@"
SH
chmod +x "$dir/kubectl"

# fail WHAT LOG...: the ends of those logs say why.
fail() {
  echo "up: $1" >&2
  shift
  local log
  for log in node "$@"; do tail -n 15 "$dir/log/$log.log" | sed "s/^/$log: /" >&2 || true; done
  exit 1
}
undo() {
  local status=$?
  trap - EXIT
  ((status == 0)) || "$here/down.sh" "$dir" >&2 || true
  exit "$status"
}
trap undo EXIT
trap 'exit 130' INT TERM HUP

: >"$dir/unshare.pid"
setsid unshare --mount --net --pid --uts --ipc --fork --kill-child --propagation private \
  "$here/node.sh" "$dir" "$root" "$kubernetes" "$coredns" "$node" "$address" "$host" "$services" \
  "$cgroup" >"$dir/log/node.log" 2>&1 </dev/null &
echo $! >"$dir/unshare.pid"
# wait_for SECONDS WHAT LOG COMMAND...
wait_for() {
  local end=$((SECONDS + $1)) what=$2 log=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    kill -0 "$(<"$dir/unshare.pid")" 2>/dev/null || fail "the node ended before $what"
    ((SECONDS < end)) || fail "waited in vain for $what" "$log"
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
wait_for 20 'its namespaces' node in_namespaces
ip link add "$interface" type veth peer name eth0 netns "$(<"$dir/init.pid")"
ip addr add "$host/24" dev "$interface"
ip link set "$interface" up
for range in "$pods" "$services"; do ip route add "$range" via "$address"; done

wait_for 120 'the API server' kube-apiserver "$dir/kubectl" get --raw /readyz
say 'the API server answers'
wait_for 60 'the images' containerd test -e "$dir/images/loaded"
say 'the images are loaded'
wait_for 120 'the node to be ready' kubelet \
  "$dir/kubectl" wait --for=condition=Ready "node/$node" --timeout=1s
wait_for 60 'the default service account' kube-controller-manager \
  "$dir/kubectl" get serviceaccount default
say 'the node is ready'
wait_for 60 'the API server to answer by its Service' kube-proxy \
  "$dir/kubectl" --server="https://$service" get --raw /readyz
say 'Services work'
wait_for 60 "the API server's name in the DNS" coredns \
  "$here/on-node.sh" "$dir" busybox nslookup kubernetes.default.svc.cluster.local "$address"
say 'DNS works'
