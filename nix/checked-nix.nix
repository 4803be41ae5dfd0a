# The Nix of images: one whose builds stay in their sandbox (docs/security.md, "Which Nix").
{ lib, nix }:
let
  # The first mended release of each series; later series are mended.
  mended = { "2.28" = "2.28.6"; "2.29" = "2.29.3"; "2.30" = "2.30.4"; "2.31" = "2.31.4"; "2.32" = "2.32.7"; "2.33" = "2.33.4"; "2.34" = "2.34.5"; };
  least = mended.${lib.versions.majorMinor nix.version} or "2.34.5";
in
if lib.versionAtLeast nix.version least then
  nix
else
  throw "nix ${nix.version} lets builds out of their sandbox: take a nixpkgs with ${least} or newer (docs/security.md)"
