#!/usr/bin/env bash
# Makes the keys of a cache and its nodes, once, in a directory that kustomize takes as a resource:
#   deploy/make-keys.sh DIR [NAMESPACE]
# Keep DIR as secret as the cluster's own credentials; `kubectl apply -k` sends it. A file that is there
# is left as it is, so that one key is renewed by removing its file and running this again; docs/keys.md says
# in which order, so that nothing is interrupted. Who else may log in at the cache, such as a laptop: put its
# public key into DIR/cache-keys/NAME.pub and list it in DIR/kustomization.yaml.
set -euo pipefail

dir=${1:?usage: make-keys.sh DIR [NAMESPACE]} namespace=${2:-nix-csi}
for program in ssh-keygen nix; do
  command -v "$program" >/dev/null || { echo "make-keys: $program is not installed" >&2; exit 1; }
done
umask 077
mkdir -p "$dir/cache-keys" "$dir/node-keys"
cd "$dir"

# Hosts and clients have keys of their own: who has one can't be taken for another.
for name in cache-host builder-host node cache; do
  [[ -e $name ]] || ssh-keygen -q -t ed25519 -N '' -C "nix-csi $name" -f "$name"
done
if [[ ! -e signing ]]; then
  nix --extra-experimental-features nix-command key generate-secret \
    --key-name "nix-csi-$(date +%s)" >signing.new
  mv signing.new signing
fi
# What an earlier key signed is still there.
public=$(nix --extra-experimental-features nix-command key convert-secret-to-public <signing)
known=$(cat signing.pub 2>/dev/null || true)
[[ " $known " == *" $public "* ]] || printf '%s' "${known:+$known }$public" >signing.pub
# Nodes may log in at the cache, and the cache at the nodes.
cp node.pub cache-keys/node.pub
cp cache.pub node-keys/cache.pub
# An earlier host key that still counts is in a file such as cache-host-old.pub.
for name in nix-cache "nix-cache.$namespace" "nix-cache.$namespace.svc"; do
  for key in cache-host*.pub; do
    echo "$name $(cut -d' ' -f1,2 "$key")"
  done
done >known_hosts

[[ ! -e kustomization.yaml ]] || exit 0
cat >kustomization.yaml <<EOF
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: $namespace
# Pods follow a change of who may log in without a restart, so the names stay.
generatorOptions: {disableNameSuffixHash: true}
secretGenerator:
  # What a node is: to the cache, to who builds on it, and as who signs.
  - name: nix-csi-node-keys
    files: [ssh=node, host=builder-host, signing]
  # What the cache is: to nodes, and to the nodes that build for it.
  - name: nix-csi-cache-keys
    files: [host=cache-host, builder=cache]
configMapGenerator:
  # Who may log in at the cache.
  - name: nix-csi-cache-authorized
    files: [cache-keys/node.pub]
  # Who may build on a node: with its daemon's trust, which is as good as root there.
  - name: nix-csi-node-authorized
    files: [node-keys/cache.pub]
  - name: nix-csi-public-keys
    files: [known_hosts, signing.pub, builder-host.pub]
EOF
