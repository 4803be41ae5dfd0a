# deploy/deploy.sh and undeploy.sh with the programs they need; the chart is beside them, and its dashboards.
{ lib, writeShellScriptBin, symlinkJoin, bash, kubernetes-helm, kubectl, coreutils, gnused, diffutils }:
let
  source = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../deploy ../dashboards ];
  };
  script = name: writeShellScriptBin "nix-csi-${name}" ''
    export PATH=${lib.makeBinPath [ kubernetes-helm kubectl coreutils gnused diffutils bash ]}:$PATH
    exec ${bash}/bin/bash ${source}/deploy/${name}.sh "$@"
  '';
in
symlinkJoin {
  name = "nix-csi-deploy";
  paths = map script [ "deploy" "undeploy" ];
}
