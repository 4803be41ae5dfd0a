#!/usr/bin/env bash
# Writes the cluster's certificates into DIR/pki and a kubeconfig for each of its users into DIR/etc:
#   scripts/cluster/pki.sh DIR NODE NODE-ADDRESS SERVICE-ADDRESS
# Everything is valid for thirty days; the authority's key stays in DIR.
set -euo pipefail

dir=$1 node=$2 address=$3 service=$4
mkdir -p "$dir/pki" "$dir/etc"
cd "$dir/pki"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }
# certificate NAME SUBJECT [ALTERNATIVE-NAMES]
certificate() {
  key "$1"
  {
    echo 'keyUsage=digitalSignature,keyEncipherment'
    echo 'extendedKeyUsage=serverAuth,clientAuth'
    [[ ! ${3-} ]] || echo "subjectAltName=$3"
  } >"$1.ext"
  openssl req -new -key "$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" \
      -out "$1.crt" 2>/dev/null
}
key ca
openssl req -x509 -new -key ca.key -subj /CN=nix-csi-e2e -days 30 -out ca.crt
names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost
certificate apiserver /CN=kube-apiserver "$names,IP:127.0.0.1,IP:$service,IP:$address"
certificate admin /O=system:masters/CN=admin
certificate controllers /CN=system:kube-controller-manager
certificate scheduler /CN=system:kube-scheduler
certificate proxy /CN=system:kube-proxy
certificate kubelet "/O=system:nodes/CN=system:node:$node"
certificate kubelet-serving "/CN=$node" "DNS:$node,IP:$address"
# Service accounts' tokens are signed with this one.
key accounts
openssl ec -in accounts.key -pubout -out accounts.pub 2>/dev/null

for user in admin controllers scheduler proxy kubelet; do
  cat >"$dir/etc/$user.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters:
  - name: e2e
    cluster: {server: "https://$address:6443", certificate-authority: $dir/pki/ca.crt}
users:
  - name: $user
    user: {client-certificate: $dir/pki/$user.crt, client-key: $dir/pki/$user.key}
contexts:
  - name: e2e
    context: {cluster: e2e, user: $user}
current-context: e2e
YAML
done
