{
  description = "Kubernetes CSI driver that mounts Nix closures into pods";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forAll = make: nixpkgs.lib.genAttrs systems (system: make (import ./default.nix { pkgs = nixpkgs.legacyPackages.${system}; }));
    in
    {
      packages = forAll (all: builtins.removeAttrs all [ "shell" ] // { default = all.driver; });
      devShells = forAll (all: { default = all.shell; });
      checks = forAll (all: { inherit (all) driver node cache; });
      apps = forAll (all: {
        deploy = { type = "app"; program = "${all.deploy}/bin/nix-csi-deploy"; };
        undeploy = { type = "app"; program = "${all.deploy}/bin/nix-csi-undeploy"; };
        push = { type = "app"; program = "${all.push}/bin/nix-csi-push"; };
      });
      nixosModules.default = import ./nix/module.nix;
    };
}
