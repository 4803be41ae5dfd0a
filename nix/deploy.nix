# deploy/deploy.sh with the programs it needs; it finds the chart beside itself.
{ lib, writeShellScriptBin, bash, kubernetes-helm, kubectl, coreutils }:
writeShellScriptBin "nix-csi-deploy" ''
  export PATH=${lib.makeBinPath [ kubernetes-helm kubectl coreutils bash ]}:$PATH
  exec ${bash}/bin/bash ${../deploy}/deploy.sh "$@"
''
