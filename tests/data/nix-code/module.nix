# What the NixOS module makes of settings: its options' defaults, with those on top.
{ settings }:
let
  pkgs = import ./pkgs.nix { };
  inherit (pkgs) lib;
  isOption = it: it ? type && it ? description;
  merge = options: set: builtins.mapAttrs (
    name: it: if isOption it then set.${name} or (it.default or (throw "${name} is not set")) else merge it (set.${name} or { })
  ) options;
  unknown = options: set: builtins.concatMap (
    name: if !(options ? ${name}) then [ name ] else if isOption options.${name} then [ ] else unknown options.${name} set.${name}
  ) (builtins.attrNames set);
  module = import ../../../nix/module.nix { inherit lib pkgs config; };
  options = module.options.services.nix-csi;
  config = {
    networking.hostName = "machine";
    nix.package = pkgs.nix;
    services.nix-csi = if unknown options settings == [ ] then merge options settings else throw "no option";
  };
in
module.config.systemd.services.nix-csi or null
