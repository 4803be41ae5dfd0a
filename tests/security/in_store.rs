//! A Nix that lies in the store itself, as on NixOS and below a profile: who sees no other path of the node's sees
//! that one.

use std::fs;

use crate::lab::Lab;
use crate::planted;
use crate::private::{POLICY, publish};
use crate::taken_over::{TAKEN, hooked};
use crate::world::{SANDBOXED, builder};

/// With the machine's tools.
fn made(name: &str, more: &str, script: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; {more} script = ''{script}'';
           PATH = \"/usr/bin:/bin\"; builder = \"/bin/sh\"; args = [ \"-euc\" \"eval \\\"$script\\\"\" ]; }}"
    )
}

/// The machine's Nix with all that it is linked with, in two paths, and an environment with links to it.
fn installed(lab: &Lab) -> String {
    let real = lab.ok("sh", &["-c", "realpath $(command -v nix)"]);
    let names = lab.ok("sh", &["-c", "cd $(dirname $(command -v nix)); echo nix-*"]);
    let libraries = format!(
        "all=$(ldd {real} | grep -o '/[^ ]*'); mkdir $out; cp $all $out; mv $out/ld-linux* $out/ld.so"
    );
    let nix = format!(
        "mkdir -p $out/bin $out/libexec; cp {real} $out/libexec/real
         for name in nix build-remote {names}; do
             printf '#!/bin/sh\\nexec %s/ld.so --library-path %s --argv0 %s %s/libexec/real \"$@\"\\n' \
                 $libraries $libraries $name $out >$out/bin/$name
         done
         mv $out/bin/nix $out/libexec/nix
         printf %s \"$hooked\" | sed \"s|REAL|$out/libexec/nix|\" >$out/bin/nix
         chmod +x $out/bin/* $out/libexec/nix"
    );
    let hooked = format!("hooked = builtins.readFile {};", lab.path("hooked").display());
    fs::write(lab.path("hooked"), self::hooked("REAL")).unwrap();
    let text = format!(
        "let libraries = {}; nix = {}; in {}",
        made("libraries", "", &libraries),
        made("nix", &format!("inherit libraries; {hooked}"), &nix),
        made(
            "environment",
            &format!("inherit nix; other = {};", made("other", "", "touch $out")),
            "mkdir -p $out/bin; ln -s $nix/bin/* $other $out/bin"
        )
    );
    let options = ["--option", "sandbox", "false", "--option", "substituters", "", "--no-out-link"];
    lab.ok("nix-build", &[&options[..], &["-E", &text]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nix_in_the_store_evaluates_for_who_sees_no_store() {
    let lab = planted!();
    let environment = installed(&lab);
    let program = format!("{environment}/bin/nix");
    let real = lab.ok("realpath", &[&program]);
    let policy = lab.path("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    // The Nix of Debian's trixie looks beside what its process runs, which is ld.so here.
    let hook = format!("build-hook={}/build-remote", real.strip_suffix("/nix").unwrap());
    let profile = "/nix/var/nix/profiles/default";
    lab.ok("sh", &["-euc", &format!("mkdir -p ${{0%/*}}; ln -s {environment} $0"), profile]);
    for (n, nix) in [&real, &program, &format!("{profile}/bin/nix")].iter().enumerate() {
        let policy = ["--policy-file", policy.to_str().unwrap(), "--eval-mode", "impure"];
        let mut node =
            lab.node(&[SANDBOXED, &policy, &["--nix", nix, "--nix-option", &hook]].concat()).await;
        let there = (&lab, &node);
        let input = "src = builtins.toFile \"text\" \"text\";";
        let text = builder(&format!("made-{n}"), input, "$b cat $src > $out");
        for namespace in ["web", "other", "open"] {
            let shown = publish(there, namespace, ("nixExpr", &text)).await;
            assert_eq!(shown.unwrap(), "text", "{nix}");
        }
        // What an evaluator sees of the node's store is that, and it moves nothing of it.
        let looks = format!(
            "{TAKEN}cd /nix/store
             for path in $0 $(realpath $0); do path=${{path%/bin/nix}}; mv $path $path-aside && moved=moved; done
             mv /nix/store /nix/aside && moved=moved
             echo \"= $(ls | sed 's/^[^-]*-//' | sort | tr '\\n' ' ') $moved\" >&2; exit 1"
        );
        let status = publish(there, "other", ("nixExpr", &looks)).await.unwrap_err();
        assert!(status.message().contains("libraries made"), "{status}");
        for none in ["moved", "other"] {
            assert!(!status.message().contains(none), "{none}: {status}");
        }
        assert_eq!(node.stop(), Some(0));
    }
}
