#!/usr/bin/env bash
# Installs the driver, or changes what is installed, without a Helm release: renders the chart, shows what would
# change, asks, and applies on the server's side.
#   deploy/deploy.sh [--yes] [--prune] [--namespace NAMESPACE] [HELM OPTION...]
# HELM OPTION is one of `helm template`, such as --set or --values. --prune also removes what an earlier
# `deploy.sh --prune` made and the chart does not have any more: of an apply set of kubectl's, so nothing else, and
# never the namespace. --yes shows and asks nothing. It needs helm, and kubectl 1.30 or newer.
set -euo pipefail

fail() { echo "deploy: $*" >&2; exit 1; }
yes='' prune='' namespace=nix-csi options=()
while (($#)); do
  case $1 in
    --yes) yes=1 ;;
    --prune) prune=1 ;;
    -n | --namespace) namespace=${2:?deploy: --namespace needs a name} && shift ;;
    --namespace=*) namespace=${1#*=} ;;
    --kube* | --dry-run*) fail "$1 would count for helm alone: which cluster it is say by KUBECONFIG and \`kubectl config\`" ;;
    *) options+=("$1") ;;
  esac
  shift
done
chart=$(dirname "$0")/chart
for program in helm kubectl; do
  command -v "$program" >/dev/null || fail "$program is not installed"
done
release=$(kubectl --namespace "$namespace" get daemonsets --selector=app.kubernetes.io/component=node \
  --output='jsonpath={.items[*].metadata.annotations.meta\.helm\.sh/release-name}')
[[ ! $release ]] || fail "$namespace has a Helm release $release: change it with helm upgrade"

objects=$(mktemp)
trap 'rm -f "$objects"' EXIT
version=$(kubectl version --output=json | sed -n '/serverVersion/,$s/.*"gitVersion": "\(v[0-9.]*\).*/\1/p')
# What it has of Helm is not so here.
helm template nix-csi "$chart" --namespace "$namespace" --kube-version "${version:?deploy: no API server}" \
  "${options[@]}" --set namespace.create=false | sed '/app.kubernetes.io\/managed-by:/d' >"$objects"
export KUBECTL_EXTERNAL_DIFF="diff -u -N -I applyset"

apply() {
  local args=(apply --server-side --force-conflicts --field-manager=nix-csi-deploy --filename="$objects")
  # Who is in the set is its parent's to know, a ConfigMap.
  [[ ! $prune ]] || args+=(--prune --applyset=configmaps/nix-csi-deployed --namespace="$namespace")
  KUBECTL_APPLYSET=true kubectl "${args[@]}" "$@"
}
is_there() { [[ $(kubectl get namespace "$namespace" --ignore-not-found --output=name) ]]; }

if [[ ! $yes ]]; then
  if is_there; then
    status=0
    kubectl diff --server-side --force-conflicts --field-manager=nix-csi-deploy --filename="$objects" || status=$?
    ((status <= 1)) || exit "$status"
    [[ ! $prune ]] || apply --dry-run=server | sed -n 's/ pruned.*/ would be removed/p'
  else
    echo "namespace $namespace is not there yet: everything is new"
  fi
  [[ -t 0 ]] || fail 'nobody to ask at a terminal: --yes applies it'
  read -r -p "apply this to $(kubectl config current-context)? [y/N] " answer
  [[ $answer == [yY]* ]] || fail 'nothing was changed'
fi
# Not of the set: it has what is not the chart's, such as keys. The label is the privileged container's.
is_there || kubectl create namespace "$namespace"
kubectl label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=privileged
apply
kubectl --namespace "$namespace" rollout status --timeout=180s "$(
  kubectl --namespace "$namespace" get daemonset --selector=app.kubernetes.io/component=node --output=name
)"
