# The driver. Its tests need root and Nix: `make test` runs them, not this build.
{ lib, rustPlatform }:
let
  cargo = builtins.fromTOML (builtins.readFile ../Cargo.toml);
in
rustPlatform.buildRustPackage {
  pname = cargo.package.name;
  inherit (cargo.package) version;
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../Cargo.toml ../Cargo.lock ../build.rs ../proto ../src ../benches ../tests ];
  };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "--bin" "nix-csi" ];
  doCheck = false;
  meta = {
    inherit (cargo.package) description;
    license = lib.licenses.mit;
    mainProgram = "nix-csi";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
