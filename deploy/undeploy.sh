#!/usr/bin/env bash
# Takes the driver out of a cluster and off its nodes: mounts of views, the plugin's directory, records, and on
# request the store; then the objects of Helm's release or of deploy.sh. Not while a pod has a volume of it.
#   deploy/undeploy.sh [--yes] [--store] [--namespace NAMESPACE]
# --store removes what nodes have fetched and built as well. The namespace stays with its Secrets, and a cache's
# claim. It needs kubectl, and helm where there is a release.
set -euo pipefail

yes='' namespace=nix-csi args='"clean","--stay"'
while (($#)); do
  case $1 in
    --yes) yes=1 ;;
    --store) args+=',"--store"' ;;
    --namespace) namespace=${2:?undeploy: --namespace needs a name} && shift ;;
    --namespace=*) namespace=${1#*=} ;;
    *) echo 'usage: undeploy.sh [--yes] [--store] [--namespace NAMESPACE]' >&2; exit 64 ;;
  esac
  shift
done
within() { kubectl --namespace "$namespace" "$@"; }
fail() { echo "undeploy: $*" >&2; exit 1; }

nodes=$(within get daemonsets --selector=app.kubernetes.io/component=node --output=name)
[[ $nodes && $nodes != *$'\n'* ]] || fail "namespace $namespace has ${nodes:-no DaemonSet of the driver}"
field() { within get "$nodes" --output="jsonpath=$1"; }
name=$(field '{.metadata.labels.app\.kubernetes\.io/name}')
socket=$(field '{.spec.template.spec.containers[?(@.name=="nix-csi")].env[?(@.name=="CSI_ENDPOINT")].value}')
driver=$(basename "$(dirname "$socket")")

users=$(kubectl get pods --all-namespaces --output=go-template='{{range .items}}{{$pod := .metadata}}{{range .spec.volumes}}{{if .csi}}{{if eq .csi.driver "'"$driver"'"}}{{$pod.namespace}}/{{$pod.name}}{{"\n"}}{{end}}{{end}}{{end}}{{end}}')
[[ ! $users ]] || fail "pods have volumes of $driver, delete them first:"$'\n'"$(sort -u <<<"$users")"

if [[ ! $yes ]]; then
  [[ -t 0 ]] || fail 'nobody to ask at a terminal: --yes does it'
  read -r -p "take $driver out of $(kubectl config current-context) ($args)? [y/N] " answer
  [[ $answer == [yY]* ]] || fail 'nothing was changed'
fi

# The driver's own pods become pods that clean their nodes: they have the same mounts and settings.
within patch "$nodes" --type=strategic --patch '{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"100%"}},
  "template":{"spec":{"containers":[{"name":"nix-csi","args":['"$args"'],"livenessProbe":null,"readinessProbe":null}]}}}}'
within rollout status "$nodes" --timeout=180s
for pod in $(within get pods --selector="app.kubernetes.io/name=$name,app.kubernetes.io/component=node" --output=name); do
  node=$(within get "$pod" --output='jsonpath={.spec.nodeName}')
  for ((tries = 60; ; tries--)); do
    said=$(within logs "$pod" --container=nix-csi)
    [[ $said != *'nothing of the node is left'* ]] || break
    ((tries)) || fail "$node is not clean, nothing else was removed:"$'\n'"$said"
    sleep 1
  done
  echo "$node is clean"
done

if command -v helm >/dev/null && helm --namespace "$namespace" status nix-csi >/dev/null 2>&1; then
  helm --namespace "$namespace" uninstall nix-csi --wait
  exit
fi
ours=--selector=app.kubernetes.io/part-of=$name
within delete "$ours" daemonsets,statefulsets,services,configmaps,networkpolicies,poddisruptionbudgets
within delete "$ours" rolebindings,roles,serviceaccounts
within delete --ignore-not-found configmap/nix-csi-deployed
kubectl delete "$ours" clusterrolebindings,clusterroles,csidrivers
kubectl delete "$ours" validatingadmissionpolicybindings,validatingadmissionpolicies
if kubectl get crd podmonitors.monitoring.coreos.com >/dev/null 2>&1; then
  within delete "$ours" podmonitors.monitoring.coreos.com
fi
