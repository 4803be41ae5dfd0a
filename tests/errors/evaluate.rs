//! Sources that don't evaluate.

use std::collections::HashMap;

use crate::lab;

#[tokio::test]
async fn explore() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let flake = lab.path("flake");
    std::fs::create_dir(&flake).unwrap();
    std::fs::write(
        flake.join("flake.nix"),
        "{ outputs = _: { x = throw \"a flake's own words\"; n = 1; }; }",
    )
    .unwrap();
    lab.ok("chmod", &["755", lab.dir.path().to_str().unwrap()]);
    let f = format!("path:{}", flake.display());
    let d = |s: &str| {
        format!(
            "derivation {{ name = \"broken\"; system = builtins.currentSystem; builder = \"/bin/sh\"; PATH=\"/bin:/usr/bin\"; args = [ \"-c\" ''{s}'' ]; }}"
        )
    };
    for (k, v) in [
        ("storePath", "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody".to_owned()),
        ("nixExpr", "foo".to_owned()),
        ("nixExpr", "{ a = 1; b = ; }".to_owned()),
        ("nixExpr", "throw \"a\\nb \u{1b}[31mred\u{1b}[0m\"".to_owned()),
        ("nixExpr", "let x = x; in x".to_owned()),
        ("nixExpr", "let f = x: f (x + 1); in f 0".to_owned()),
        ("nixExpr", "abort \"enough\"".to_owned()),
        ("nixExpr", "1".to_owned()),
        ("nixExpr", "{ pkgs }: pkgs".to_owned()),
        ("nixExpr", "builtins.readFile /etc/passwd".to_owned()),
        ("nixExpr", "import <nixpkgs> {}".to_owned()),
        ("nixExpr", "builtins.fetchTarball \"http://127.0.0.1:1/x.tar.gz\"".to_owned()),
        ("nixExpr", "--help".to_owned()),
        ("nixExpr", format!("throw \"{}\"", "ü".repeat(5000))),
        ("nixExpr", "(builtins.getFlake \"nope\").x".to_owned()),
        ("nixExpr", "{ a.b.c = 1; }.a.b.d".to_owned()),
        ("nixExpr", format!("import ({})", d("echo 1 > $out"))),
        ("flakeRef", "path:/nonexistent#x".to_owned()),
        ("flakeRef", "git+file:///nonexistent#x".to_owned()),
        ("flakeRef", format!("{f}#nope")),
        ("flakeRef", f.to_string()),
        ("flakeRef", format!("{f}#x")),
        ("flakeRef", format!("{f}#n")),
        ("flakeRef", "nixpkgs#hello".to_owned()),
        ("flakeRef", "--help".to_owned()),
        ("flakeRef", "git+https://127.0.0.1:1/x#y".to_owned()),
        ("flakeRef", "https://127.0.0.1:1/x.tar.gz#y".to_owned()),
        ("flakeRef", "github:".to_owned()),
        ("flakeRef", ".".to_owned()),
        (
            "nixExpr",
            d(
                "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; printf '\\\\033[31mred\\\\033[0m\\\\n'; exit 3",
            ),
        ),
        ("nixExpr", d("true")),
        (
            "nixExpr",
            d(
                "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do head -c 3000 /dev/zero | tr '\\\\0' 'x'; echo; done; exit 3",
            ),
        ),
        (
            "nixExpr",
            d(
                "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do for j in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü'; done; echo; done; exit 3",
            ),
        ),
        (
            "nixExpr",
            "derivation { name = \"w\"; system = \"riscv64-linux\"; builder = \"/bin/sh\"; }"
                .to_owned(),
        ),
    ] {
        let mut volume = lab.volume("bad", &[]);
        volume.attributes = HashMap::from([(k.to_owned(), v.clone())]);
        let r = node.publish(&volume).await;
        let v: String = v.chars().take(60).collect();
        match r {
            Ok(()) => println!("#### {k} {v} OK"),
            Err(e) => println!("#### {k} {v}\n{:?} {}\n", e.code(), e.message()),
        }
        let lab_dir = lab.dir.path().to_str().unwrap();
        let _ = lab_dir;
    }
}
