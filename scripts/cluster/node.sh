#!/usr/bin/env bash
# The node, inside of its namespaces and as their first process: puts its root together, enters it,
# and keeps the cluster's programs running. Started by up.sh.
#   node.sh DIR ROOT KUBERNETES COREDNS NODE NODE-ADDRESS HOST-ADDRESS SERVICES CGROUP
# A program that ends is started again, unless DIR/stopped has a file of its name.
set -euo pipefail

dir=$1 lower=$2 kubernetes=$3 coredns=$4 node=$5 address=$6 host=$7 services=$8 cgroup=$9
etc=$dir/etc pki=$dir/pki

# The cached root is the lower layer and stays as it is.
root=$dir/root
mkdir -p "$root" "$dir/upper" "$dir/work"
mount -t overlay node "$root" -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work"
for path in /dev /sys; do mount --rbind "$path" "$root$path"; done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 run "$root/run"
mkdir -p "$root$dir" "$root"/opt/{kubernetes,coredns}
mount --bind "$dir" "$root$dir"
mount --bind "$kubernetes" "$root/opt/kubernetes"
mount --bind "$coredns" "$root/opt/coredns"
# Images and stores are on the disk itself: an overlay's upper layer can't be on an overlay.
for name in kubelet containerd etcd nix-csi; do
  mkdir -p "$dir/state/$name" "$root/var/lib/$name"
  mount --bind "$dir/state/$name" "$root/var/lib/$name"
done
cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
# What the driver mounts is to be seen by the kubelet and by pods.
mount --make-rshared /
export PATH=/opt/kubernetes:/opt/coredns:/usr/sbin:/usr/bin:/sbin:/bin

# The kubelet wants its cgroup to be there, with all controllers: version 1 or 2.
if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
  for controller in $(</sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
  done
  mkdir -p "/sys/fs/cgroup/$cgroup"
else
  for controller in /sys/fs/cgroup/*/; do mkdir -p "$controller$cgroup"; done
fi

echo "$node" >/proc/sys/kernel/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$node" >/etc/hosts
# The root has no netbase. nft would print protocols as numbers, and a kube-proxy that restarts would
# not know its own services' entries and remove them.
printf '%s\n' 'tcp 6 TCP' 'udp 17 UDP' 'sctp 132 SCTP' >/etc/protocols
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$host"
echo 1 >/proc/sys/net/ipv4/ip_forward

# keep NAME COMMAND...
keep() {
  local name=$1
  shift
  while :; do
    if [[ -e $dir/stopped/$name ]]; then
      sleep 0.1
      continue
    fi
    "$@" || echo "$name ended with status $?"
    sleep 0.2
  done >>"$dir/log/$name.log" 2>&1 &
}

keep etcd etcd --name e2e --data-dir /var/lib/etcd --unsafe-no-fsync \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380
keep kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
  --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$address" \
  --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
  --client-ca-file="$pki/ca.crt" --cert-dir="$pki" --allow-privileged=true \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$pki/accounts.pub" \
  --service-account-signing-key-file="$pki/accounts.key" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
  --service-cluster-ip-range="$services" --endpoint-reconciler-type=lease --profiling=false \
  --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
  --kubelet-certificate-authority="$pki/ca.crt" \
  --kubelet-preferred-address-types=InternalIP
keep kube-controller-manager kube-controller-manager --kubeconfig="$etc/controllers.kubeconfig" \
  --use-service-account-credentials --root-ca-file="$pki/ca.crt" --cert-dir="$pki" \
  --service-account-private-key-file="$pki/accounts.key" --leader-elect=false \
  --bind-address=127.0.0.1 --kube-api-qps=200 --kube-api-burst=400
keep kube-scheduler kube-scheduler --kubeconfig="$etc/scheduler.kubeconfig" --leader-elect=false \
  --bind-address=127.0.0.1 --cert-dir="$pki"
keep containerd containerd --config "$etc/containerd.toml"
until ctr version >/dev/null 2>&1; do sleep 0.05; done
shopt -s nullglob
for image in "$dir"/images/*.tar; do
  ctr -n k8s.io images import --local "$image" >/dev/null || { echo "node: no image: $image" >&2; exit 1; }
done
touch "$dir/images/loaded"
keep kubelet kubelet --config="$etc/kubelet.yaml" --kubeconfig="$etc/kubelet.kubeconfig" \
  --hostname-override="$node" --node-ip="$address" --cert-dir=/var/lib/kubelet/pki --v=2
# The kernel's limits are the machine's, and not for a node in a container to change.
keep kube-proxy kube-proxy --kubeconfig="$etc/proxy.kubeconfig" --hostname-override="$node" \
  --proxy-mode=nftables --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
  --conntrack-tcp-timeout-close-wait=0
keep coredns coredns -conf "$etc/Corefile"
while :; do wait || true; done
