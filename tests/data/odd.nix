# A closure of odd shapes that a view must show as they are, from nothing but /bin/sh and coreutils
# (sandbox off).
{ system ? builtins.currentSystem }:
let
  odd = name: needs: script: derivation {
    inherit name system needs;
    builder = "/bin/sh";
    args = [ "-c" "set -eu\n${script}" ];
    PATH = "/bin:/usr/bin";
  };

  directory = odd "odd-directory" [ ] ''
    mkdir -p $out/bin $out/empty $out/empty-too/inner
    echo data > $out/plain
    printf '#!/bin/sh\necho odd\n' > $out/bin/odd
    chmod 555 $out/bin/odd
    chmod 444 $out/plain
    : > $out/zero
  '';
  file = odd "odd-file" [ ] ''echo "a store path that is a file" > $out'';
  executable = odd "odd-executable" [ ] ''
    printf '#!/bin/sh\necho executable\n' > $out
    chmod +x $out
  '';
  link = odd "odd-link" [ directory ] "ln -s $needs/plain $out";
  linkToNothing = odd "odd-link-to-nothing" [ ] "ln -s /nowhere/at/all $out";

  hardLinks = odd "odd-hard-links" [ ] ''
    mkdir -p $out/a $out/b
    echo shared > $out/a/one
    ln $out/a/one $out/a/two
    ln $out/a/one $out/b/three
  '';
  links = odd "odd-links" [ file directory ] ''
    mkdir -p $out/dir
    ln -s nowhere $out/dangling
    ln -s loop $out/loop
    ln -s . $out/self
    ln -s ../.. $out/dir/above
    ln -s "" $out/dir/nothing 2>/dev/null || :
    ln -s dir/.. $out/around
    for path in $needs; do ln -s $path $out/; done
  '';
  names = odd "odd-names" [ ] ''
    mkdir $out
    cd $out
    newline=$(printf 'new\nline.'); newline=''${newline%.}
    for name in 'a:b' 'a,b' 'a=b' 'a b' ' leading' 'trailing ' '-dash' '--option' 'back\slash' \
      'quote"' "quote'" '$dollar' '`tick`' '*' '?' '[x]' '#hash' '%41' '...' '.hidden' '~' \
      "$newline" "$(printf 'tab\tulator')" "$(printf 'bell\007')" \
      "$(printf 'caf\303\251')" "$(printf 'cafe\314\201')" "$(printf 'bytes\377\376')"; do
      echo "$name" > "./$name"
    done
    mkdir './dir:with,all kinds'
    echo inner > './dir:with,all kinds/-file'
    ln -s 'a:b' './link to: a,b'
    printf -v long '%255s' x 2>/dev/null || long=$(printf '%255s' x)
    echo long > "./$(echo "$long" | tr ' ' n)"
  '';
  # 60 levels of 40 bytes: near, not over, what a path from a volume's target may have.
  deep = odd "odd-deep" [ ] ''
    mkdir $out
    cd $out
    level=0
    while [ $level -lt 60 ]; do
      mkdir level-$level-abcdefghijklmnopqrstuvwxyz01234
      cd level-$level-abcdefghijklmnopqrstuvwxyz01234
      level=$((level + 1))
    done
    echo bottom > bottom
  '';
  wide = odd "odd-wide" [ ] ''
    mkdir $out
    cd $out
    i=0
    while [ $i -lt 1000 ]; do : > $i; i=$((i + 1)); done
  '';
in
odd "odd-root"
  [ directory file executable link linkToNothing hardLinks links names deep wide ]
  ''
    mkdir -p $out/etc $out/bin
    echo odd > $out/etc/marker
    printf '#!/bin/sh\necho hello from odd\n' > $out/bin/hello
    chmod +x $out/bin/hello
    for path in $needs; do ln -s $path $out/etc/; done
  ''
