# Store closures of any size from nothing but /bin/sh and coreutils (sandbox off):
#   nix-build tests/closures.nix --arg paths 60 --arg files 5000 --arg bytes 200000000 --argstr seed m
# paths, files and bytes are those of the whole closure, files and bytes about. Another seed gives a
# closure that shares nothing; another variant changes the last tenth of the paths and the root, so
# that two variants share the rest, as two programs share their libraries.
{
  paths ? 5,
  files ? 50,
  bytes ? 500000,
  seed ? "small",
  variant ? "",
  system ? builtins.currentSystem,
}:
let
  inherit (builtins) elemAt genList toString;
  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;
  unique = list: builtins.attrNames (builtins.listToAttrs (map (n: { name = toString n; value = 0; }) list));

  count = max 1 (paths - 1); # the root holds no files of its own
  perPath = max 1 (files / count);
  perFile = max 1 (bytes / (count * perPath));
  varies = i: i >= count - max 1 (count / 10);

  # $block is doubled up to the size of a file; a file is its own name and then the block.
  script = ''
    set -eu
    mkdir -p $out/bin $out/lib/links $out/share
    block=0123456789abcdef
    while [ ''${#block} -lt $perFile ] && [ ''${#block} -lt 65536 ]; do block=$block$block; done
    file=0
    while [ $file -lt $perPath ]; do
      dir=$out/lib/$((file / 50))/sub
      [ $((file % 50)) -ne 0 ] || mkdir -p $dir
      case $((file % 8)) in
        0) path=$out/bin/program$file ;;
        *) path=$dir/file$file ;;
      esac
      printf '%s %s %s\n' $name $file $block | head -c $perFile > $path
      written=''${#block}
      while [ $written -lt $perFile ]; do
        printf %s $block; written=$((written + ''${#block}))
      done | head -c $((perFile > 65536 ? perFile - 65536 : 0)) >> $path
      [ $((file % 10)) -ne 9 ] || ln -s ../''${path#$out/lib/} $out/lib/links/link$file
      file=$((file + 1))
    done
    for program in $out/bin/*; do [ ! -e $program ] || chmod +x $program; done
    # References, as text and as links.
    for path in $needs; do
      echo $path
      ln -s $path $out/share/''${path##*/}
    done > $out/share/references
  '';

  path = i: derivation {
    name = "${seed}-${toString i}${if varies i && variant != "" then "-" + variant else ""}";
    inherit system;
    builder = "/bin/sh";
    args = [ "-c" script ];
    PATH = "/bin:/usr/bin";
    perPath = toString perPath;
    perFile = toString perFile;
    # The one before, one half way back, and the first.
    needs = map (n: elemAt all (builtins.fromJSON n)) (unique (if i == 0 then [ ] else [ (i - 1) (i / 2) 0 ]));
  };
  all = genList path count;
in
derivation {
  name = "${seed}-root${if variant != "" then "-" + variant else ""}";
  inherit system seed variant;
  builder = "/bin/sh";
  args = [
    "-c"
    ''
      set -eu
      mkdir -p $out/bin $out/etc $out/share
      echo "$seed $variant" > $out/etc/marker
      printf '#!/bin/sh\necho hello from %s\n' $seed > $out/bin/hello
      chmod +x $out/bin/hello
      for path in $needs; do ln -s $path $out/share/; done
    ''
  ];
  PATH = "/bin:/usr/bin";
  needs = genList (i: elemAt all (count - 1 - i * 10)) (max 1 (min count ((count + 9) / 10)));
}
