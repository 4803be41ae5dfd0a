# The chart with its default values, as manifests.yaml and as a list in manifests.json.
{ runCommand, kubernetes-helm, yq-go }:
runCommand "nix-csi-manifests" { nativeBuildInputs = [ kubernetes-helm yq-go ]; } ''
  mkdir $out
  helm template nix-csi ${../deploy/chart} --namespace nix-csi > $out/manifests.yaml
  yq eval-all --output-format json '[select(. != null)] | {"apiVersion": "v1", "kind": "List", "items": .}' \
    $out/manifests.yaml > $out/manifests.json
''
