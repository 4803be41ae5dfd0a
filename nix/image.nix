# An image with nothing but an environment in its store. It starts by /nix/var/result, which is the
# environment's: the image's own, or that of the store mounted over /nix, into which `nix-csi bootstrap`
# copied it.
{ lib, dockerTools, linkFarm, writeText, busybox, cacert, environment, driver }:
let
  builders = map toString (lib.range 1 8);
  passwd = lib.concatMapStrings (line: line + "\n") (
    [
      "root:x:0:0::/root:/bin/sh"
      "sshd:x:998:998::/run/sshd:/bin/false"
      "nix:*:30998:30998::/:/bin/sh"
    ]
    ++ map (n: "nixbld${n}:x:${toString (30000 + lib.toInt n)}:30000::/var/empty:/bin/false") builders
  );
  group = lib.concatMapStrings (line: line + "\n") [
    "root:x:0:"
    "sshd:x:998:"
    "nix:x:30998:"
    "nixbld:x:30000:${lib.concatMapStringsSep "," (n: "nixbld${n}") builders}"
  ];
in
dockerTools.buildLayeredImage {
  name = environment.name;
  tag = driver.version;
  # Paths of a layer each; the rest share one.
  maxLayers = 60;
  # `nix-csi bootstrap` reads the environment's closure from it.
  includeNixDB = true;
  # The database has what is among the contents only; those themselves are links into /nix, so files are copied below.
  contents = [ (linkFarm "nix-csi-image" { "share/nix-csi/environment" = environment; }) ];
  extraCommands = ''
    mkdir -p nix/var bin etc/ssl/certs root run/sshd tmp var/empty
    chmod 1777 tmp
    ln -s ${environment} nix/var/result
    # An evaluation sees these two, and of /nix not more than store paths.
    ln -s ${environment}/bin/sh bin/sh
    cp ${cacert}/etc/ssl/certs/ca-bundle.crt etc/ssl/certs/ca-certificates.crt
    # sshd runs nothing from /nix/store, to which nixbld may write.
    cp -L ${busybox}/bin/cat bin/cat
    cp ${writeText "passwd" passwd} etc/passwd
    cp ${writeText "group" group} etc/group
  '';
  config = {
    Entrypoint = [ "/nix/var/result/bin/nix-csi" ];
    Env = [
      "PATH=/nix/var/result/bin"
      "NIX_CSI_SSHD=/nix/var/result/bin/sshd"
    ];
    Labels."org.opencontainers.image.source" = "https://github.com/nix-csi/nix-csi";
  };
}
