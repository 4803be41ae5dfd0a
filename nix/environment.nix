# What a container has in PATH, as /nix/var/result in its store: all that docs/bootstrap.md lists. The shell of
# sandboxed builds is that which nixpkgs builds into Nix.
{ lib, buildEnv, name, driver, nix, openssh, cacert, busybox, more ? [ ] }:
buildEnv {
  inherit name;
  # Busybox has sh, tar and the like where nothing else has them.
  paths = [ driver nix openssh cacert (lib.lowPrio busybox) ] ++ more;
  pathsToLink = [ "/bin" "/etc/ssl" "/libexec" ];
}
