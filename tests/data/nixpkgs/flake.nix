# Stands in for nixpkgs where the documentation's commands and the examples are tried: the packages that they name,
# made of nothing but the busybox of Nix's sandbox.
{
  outputs = _:
    let
      packages = system:
        let
          run = name: script: derivation {
            inherit name system;
            builder = "/bin/busybox";
            args = [ "sh" "-euc" script ];
          };
          busybox = run "busybox" ''
            /bin/busybox mkdir -p $out/bin
            /bin/busybox cp /bin/busybox $out/bin/busybox
          '';
          program = name: text: run name ''
            /bin/busybox mkdir -p $out/bin
            echo '#!${busybox}/bin/busybox sh' >$out/bin/${name}
            echo '${text}' >>$out/bin/${name}
            /bin/busybox chmod +x $out/bin/${name}
          '';
          linked = name: "${./nix}/ld.so --library-path ${./nix} --argv0 ${name} ${./nix}/nix";
          hook = program "hook" ''exec ${linked "build-remote"} "$@"'';
        in
        {
          hello = program "hello" ''echo "Hello, world!"'';
          # darkhttpd DIRECTORY --port PORT
          darkhttpd = program "darkhttpd" ''
            [ "$2" = --port ] && [ $# = 3 ] || exit 64
            exec ${busybox}/bin/busybox httpd -f -h "$1" -p "$3"
          '';
          # Whoever tries it puts one there, with its libraries. Its hook is where it was, and it can ask nobody.
          nix = program "nix" ''
            export NIX_CONFIG=$(${busybox}/bin/busybox printf "%s\nbuild-hook = ${hook}/bin/hook\nsubstituters =\n" "$NIX_CONFIG")
            exec ${linked "nix"} "$@"
          '';
        };
    in
    {
      legacyPackages = {
        x86_64-linux = packages "x86_64-linux";
        aarch64-linux = packages "aarch64-linux";
      };
    };
}
