# What `make check` and `make test` use.
{ mkShell, cargo, rustc, clippy, rustfmt, go, kubernetes-helm, kubectl, nix, git, openssh, e2fsprogs }:
mkShell {
  packages = [ cargo rustc clippy rustfmt go kubernetes-helm kubectl nix git openssh e2fsprogs ];
}
