# Everything that is built of this project, without flakes:
#   nix-build -A driver
# flake.nix has the same for each system.
{
  pkgs ? import <nixpkgs> { },
}:
let
  inherit (pkgs) lib callPackage;
  driver = callPackage ./nix/driver.nix { };
  nix = callPackage ./nix/checked-nix.nix { };
  # git fetches git+… flakes; e2fsprogs makes volumes with a size.
  node = callPackage ./nix/environment.nix { name = "nix-csi-node"; inherit driver nix; more = [ pkgs.git pkgs.e2fsprogs ]; };
  cache = callPackage ./nix/environment.nix { name = "nix-csi-cache"; inherit driver nix; };
in
{
  inherit driver node cache;
  image = callPackage ./nix/image.nix { environment = node; inherit driver; };
  manifests = callPackage ./nix/manifests.nix { };
  deploy = callPackage ./nix/deploy.nix { };
  push = callPackage ./nix/push.nix { };
  shell = callPackage ./nix/shell.nix { };
}
