#!/usr/bin/env bash
# Takes the driver out of a cluster and off its nodes: mounts of views, the plugin's directory, records, uploads that
# wait, and on request the store; then the objects of Helm's release or of deploy.sh. Not while a pod has a volume of
# it. Where a node can't be cleaned the driver is put back, and nothing else is removed; run it again.
#   deploy/undeploy.sh [--yes] [--store] [--timeout SECONDS] [--namespace NAMESPACE]
# --store removes what nodes have fetched and built as well. The namespace stays with its Secrets, and a cache's
# claim. It needs kubectl, and helm where there is a release.
set -euo pipefail

yes='' store='' namespace=nix-csi timeout=600
while (($#)); do
  case $1 in
    --yes) yes=1 ;;
    --store) store=1 ;;
    --timeout) timeout=${2:?undeploy: --timeout needs seconds} && shift ;;
    -n | --namespace) namespace=${2:?undeploy: --namespace needs a name} && shift ;;
    --namespace=*) namespace=${1#*=} ;;
    *) echo 'usage: undeploy.sh [--yes] [--store] [--timeout SECONDS] [--namespace NAMESPACE]' >&2; exit 64 ;;
  esac
  shift
done
within() { kubectl --namespace "$namespace" "$@"; }
fail() { echo "undeploy: $*" >&2; exit 1; }
ask() {
  [[ ! $yes ]] || return 0
  [[ -t 0 ]] || fail 'nobody to ask at a terminal: --yes does it'
  read -r -p "$1 [y/N] " answer
  [[ $answer == [yY]* ]] || fail 'nothing was changed'
}

nodes=$(within get daemonsets --selector=app.kubernetes.io/part-of,app.kubernetes.io/component=node --output=name)
[[ $nodes != *$'\n'* ]] || fail "namespace $namespace has several DaemonSets of drivers: $nodes"
field() { within get "$nodes" --output="jsonpath=$1"; }
setting() { field '{.spec.template.spec.containers[?(@.name=="nix-csi")].env[?(@.name=="'"$1"'")].value}'; }

# The driver's own pods become pods that clean their nodes: they have the same mounts and settings.
clean_nodes() {
  local users args='"clean","--stay"' deadline=$((SECONDS + timeout)) pods pod node said
  driver=$(setting NIX_CSI_DRIVER_NAME)
  driver=${driver:-nix.csi.store}
  if [[ $store ]]; then
    [[ ! $(setting NIX_CSI_NIX_DAEMON_SOCKET) ]] || fail 'the store is the nodes'"'"' own: leave --store out'
    args+=',"--store"'
  fi
  users=$(kubectl get pods --all-namespaces --field-selector=status.phase!=Succeeded,status.phase!=Failed \
    --output=go-template='{{range .items}}{{$pod := .metadata}}{{range .spec.volumes}}{{if .csi}}{{if eq .csi.driver "'"$driver"'"}}{{$pod.namespace}}/{{$pod.name}}{{"\n"}}{{end}}{{end}}{{end}}{{end}}')
  [[ ! $users ]] || fail "pods have volumes of $driver, delete them first:"$'\n'"$(sort -u <<<"$users")"
  ask "take $driver out of $(kubectl config current-context) ($args)?"

  within patch "$nodes" --type=strategic --patch '{"spec":{
    "updateStrategy":{"$patch":"replace","type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"100%"}},
    "template":{"spec":{"containers":[{"name":"nix-csi","args":['"$args"'],"livenessProbe":null,"readinessProbe":null}]}}}}'
  local uncleaned=''
  while :; do
    uncleaned=''
    # As many as are to be, each of the new kind: its log alone has that line.
    pods=$(within get pods --selector="app.kubernetes.io/name=$name,app.kubernetes.io/component=node" --output=name || true)
    for pod in $pods; do
      said=$(within logs "$pod" --container=nix-csi 2>&1 || true)
      [[ $said == *'nothing of the node is left'* ]] && continue
      node=$(within get "$pod" --ignore-not-found --output='jsonpath={.spec.nodeName}' || true)
      uncleaned+="${node:-$pod}: $(tail -n 1 <<<"$said")"$'\n'
    done
    [[ $(wc -w <<<"$pods") == "$(field '{.status.desiredNumberScheduled}')" ]] || uncleaned+=$'a node has no pod yet\n'
    [[ $uncleaned ]] || break
    if ((SECONDS >= deadline)); then
      within rollout undo "$nodes"
      fail "after $timeout s not clean, the driver is back:"$'\n'"$uncleaned"
    fi
    sleep 1
  done
  echo "every node is clean"
}

if [[ $nodes ]]; then
  name=$(field '{.metadata.labels.app\.kubernetes\.io/part-of}')
  instance=$(field '{.metadata.labels.app\.kubernetes\.io/instance}')
  release=$(field '{.metadata.annotations.meta\.helm\.sh/release-name}')
  [[ ! $release ]] || command -v helm >/dev/null || fail "it is a Helm release, $release: helm is not installed"
  clean_nodes
  if [[ $release ]]; then
    helm --namespace "$namespace" uninstall "$release" --wait
    exit
  fi
else
  name=nix-csi instance=nix-csi
  ask "namespace $namespace has no DaemonSet of a driver: remove other objects of $name?"
fi
ours=--selector=app.kubernetes.io/part-of=$name,app.kubernetes.io/instance=$instance
kubectl delete "$ours" clusterrolebindings,clusterroles,csidrivers
kubectl delete "$ours" validatingadmissionpolicybindings,validatingadmissionpolicies
for kind in podmonitors prometheusrules; do
  if [[ $(kubectl get crd "$kind.monitoring.coreos.com" --ignore-not-found --output=name) ]]; then
    within delete "$ours" "$kind.monitoring.coreos.com"
  fi
done
within delete "$ours" statefulsets,services,configmaps,networkpolicies,poddisruptionbudgets,resourcequotas
within delete "$ours" rolebindings,roles,serviceaccounts
within delete --ignore-not-found configmap/nix-csi-deployed
# Last: by it the next run knows what is to be done.
within delete "$ours" daemonsets
