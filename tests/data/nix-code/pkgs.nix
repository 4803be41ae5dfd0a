# As much of nixpkgs as this project's Nix code names. A derivation is the arguments that it was asked with.
{ nixVersion ? "2.34.5" }:
let
  made = builder: args: args // {
    inherit builder;
    type = "derivation";
    outPath = "/nix/store/${args.name or args.pname}";
  };
  names = [
    "openssh" "git" "e2fsprogs" "cacert" "busybox" "bash" "kubernetes-helm" "kubectl" "coreutils" "gnused" "diffutils" "skopeo"
    "cargo" "rustc" "clippy" "rustfmt" "go" "gnutar" "gzip" "xz" "bzip2" "zstd"
  ];
  plain = builtins.listToAttrs (map (name: { inherit name; value = made "package" { inherit name; }; }) names);
  lib = {
    fileset = { toSource = { root, fileset }@args: args // { name = "source"; outPath = "/nix/store/source"; }; unions = files: map (f: if builtins.pathExists f then f else throw "no ${toString f}") files; };
    licenses.mit = "MIT";
    versions.majorMinor = version: builtins.head (builtins.match "([0-9]+[.][0-9]+).*" version);
    versionAtLeast = a: b: builtins.compareVersions a b >= 0;
    lowPrio = package: package // { priority = 10; };
    range = first: last: builtins.genList (n: first + n) (last - first + 1);
    toInt = builtins.fromJSON;
    makeBinPath = packages: builtins.concatStringsSep ":" (map (p: "${p}/bin") packages);
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    optionalAttrs = yes: attrs: if yes then attrs else { };
    mkIf = yes: it: if yes then it else { };
    mkEnableOption = what: { default = false; description = what; type = "bool"; };
    mkOption = { type, description, default ? null, ... }@args: args;
    literalExpression = text: text;
    types = { package = "package"; bool = "bool"; str = "str"; path = "path"; attrsOf = of: "attrsOf ${of}"; };
    concatMapStrings = f: list: builtins.concatStringsSep "" (map f list);
    concatMapStringsSep = separator: f: list: builtins.concatStringsSep separator (map f list);
  };
  pkgs = plain // {
    inherit lib pkgs;
    nix = made "package" { name = "nix"; version = nixVersion; };
    rustPlatform.buildRustPackage = { pname, version, src, cargoLock, ... }@args: made "rust" args;
    buildEnv = { name, paths, pathsToLink }@args: made "env" args;
    dockerTools.buildLayeredImage = { name, tag, maxLayers, includeNixDB, contents, extraCommands, config }@args: made "image" args;
    linkFarm = name: entries: made "links" { inherit name entries; };
    writeText = name: text: made "text" { inherit name text; };
    symlinkJoin = { name, paths }@args: made "join" args;
    writeShellScriptBin = name: text: made "script" { inherit name text; };
    mkShell = { packages }@args: made "shell" (args // { name = "shell"; });
    callPackage = file: given:
      let function = import file; in
      function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // given);
  };
in
pkgs
