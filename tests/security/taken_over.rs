//! An evaluator that its tenant has taken over: it does what an expression says as a program, as the user of
//! evaluations in its jail, has its store's files and database as it likes, and claims what it likes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix_csi::grpc::client::Status;
use rusqlite::Connection;

use crate::lab::{Lab, Node, names};
use crate::planted;
use crate::private::{POLICY, publish};
use crate::world::{MARK, SANDBOXED, builder};

/// With this first, an expression is a script. `run EXPRESSION` evaluates one.
pub(crate) const TAKEN: &str = "#taken over\n";
pub(crate) const TENANTS: &str = "nix/var/nix-csi/tenants";

/// A program that is the Nix `real` until it is taken over.
pub(crate) fn hooked(real: &str) -> String {
    format!(
        "#!/bin/sh
         run() {{
             with=$1; shift; n=$#
             for word; do
                 shift; n=$((n - 1)); [ $n != 0 ] || word=$with; set -- \"$@\" \"$word\"
             done
             {real} \"$@\"
         }}
         for last; do :; done
         case $last in '{}'*) eval \"$last\";; *) exec {real} \"$@\";; esac
        ",
        TAKEN.trim()
    )
}

/// A Nix that can be taken over.
fn weak_nix(lab: &Lab) -> PathBuf {
    let dir = lab.path("weak");
    fs::create_dir(&dir).unwrap();
    let real = lab.ok("sh", &["-c", "command -v nix"]);
    let names =
        lab.ok("sh", &["-c", &format!("cd {}; ls -d nix-*", real.trim_end_matches("/nix"))]);
    for name in names.lines() {
        symlink(format!("{real}{}", &name["nix".len()..]), dir.join(name)).unwrap();
    }
    let script = hooked(&real);
    let nix = dir.join("nix");
    fs::write(&nix, script).unwrap();
    fs::set_permissions(&nix, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A node with that Nix and the policy of `private`.
pub(crate) async fn weak_node(lab: &Lab, more: &[&str]) -> Node {
    let (file, weak) = (lab.path("policy.yaml"), weak_nix(lab));
    fs::write(&file, POLICY).unwrap();
    let (file, nix) = (file.to_str().unwrap(), weak.join("nix"));
    let options = ["--policy-file", file, "--nix", nix.to_str().unwrap()];
    let seen = ["--eval-path", weak.to_str().unwrap(), "--eval-mode", "impure"];
    lab.node(&[SANDBOXED, &options, &seen, more].concat()).await
}

/// A node with that Nix, where `web` has built a path.
struct World {
    node: Node,
    lab: Lab,
    output: String,
    derivation: String,
    /// What it is built from; whoever reads it has the mark.
    source: String,
    /// Of `other`.
    store: PathBuf,
}

impl World {
    async fn new(lab: Lab) -> Self {
        let node = weak_node(&lab, &[]).await;
        let stores = || {
            let is_own = |name: &String| Path::new(name).extension().is_some_and(|e| e == "own");
            names(&lab.path(TENANTS)).into_iter().filter(is_own).collect::<Vec<_>>()
        };
        // So that it has a store.
        let innocent = builder("innocent", "", "echo x > $out");
        publish((&lab, &node), "other", ("nixExpr", &innocent)).await.unwrap();
        let store = lab.path(TENANTS).join(&stores()[0]).join("nix");
        let text = format!("src = builtins.toFile \"private-text\" \"{MARK}\";");
        let private = builder("private", &text, "$b mkdir $out; $b cat $src > $out/inner");
        let output = publish((&lab, &node), "web", ("nixExpr", &private)).await.unwrap();
        assert_eq!(stores().len(), 2);
        let derivation = lab.ok("nix-store", &["--query", "--deriver", &output]);
        let inputs = lab.ok("nix-store", &["--query", "--references", &derivation]);
        let source =
            inputs.lines().find(|path| path.ends_with("-private-text")).unwrap().to_owned();
        Self { node, lab, output, derivation, source, store }
    }

    /// What `other` is shown of what its evaluator says.
    async fn shown(&self, script: &str) -> Result<String, Status> {
        let text = [("OUTPUT", &self.output), ("DERIVATION", &self.derivation)];
        let all = text.into_iter().chain([("SOURCE", &self.source)]);
        let script = all.fold(script.to_owned(), |text, (name, path)| text.replace(name, path));
        let there = (&self.lab, &self.node);
        publish(there, "other", ("nixExpr", &format!("{TAKEN}{script}"))).await
    }

    /// What is wrong, unless it is refused with these words.
    async fn refused(&self, script: &str, told: &str) -> Option<String> {
        match self.shown(script).await {
            Ok(shown) => Some(format!("{script} shows {shown}")),
            Err(status) => {
                let said = status.message();
                (!said.contains(told) || said.contains(MARK)).then(|| format!("{script}: {said}"))
            }
        }
    }

    /// Writes a path into the database of `other`.
    fn claim(&self, path: &str) {
        let connection = Connection::open(self.store.join("var/nix/db/db.sqlite")).unwrap();
        let insert =
            "insert into ValidPaths (path, hash, registrationTime, narSize) values (?1, ?2, 0, 1)";
        connection.execute(insert, [path, &format!("sha256:{:064}", 0)]).unwrap();
    }
}

const NOT_ITS_OWN: &str = ", which its namespace has neither made nor fetched";

/// It knows the name of each part of another's closure.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_taken_over_an_evaluator_comes_to_nothing_of_anothers() {
    let world = World::new(planted!()).await;
    let World { output, derivation, source, .. } = &world;
    for path in [derivation, source, output] {
        world.claim(path);
    }
    let not_its_own = |path: &str| format!("it comes to {path}{NOT_ITS_OWN}");

    let named = r#"cp /nix/store/*-innocent.drv DERIVATION; echo '[{"drvPath":"DERIVATION","outputs":{"out":"OUTPUT"}}]'"#;
    let mut wrong = vec![
        world.refused(named, &not_its_own(derivation)).await,
        world.refused("echo '[\"SOURCE\"]'", &not_its_own(source)).await,
        world.refused("echo '[\"OUTPUT\"]'", &not_its_own(output)).await,
    ];
    // Of a derivation of its own that is honest.
    let mine = |n: u8| builder(&format!("mine-{n}"), "", "echo mine > $out").replace('\'', "'\\''");
    let other = |n: u8, outputs: &str| {
        format!(
            "run '{}' \"$@\" | sed 's|\"outputs\":{{[^}}]*}}|\"outputs\":{{{outputs}}}|'",
            mine(n)
        )
    };
    let at = format!("has no output zzz at {output}");
    wrong.push(world.refused(&other(1, r#""zzz":"OUTPUT""#), &at).await);
    let not = format!("and not {output}");
    wrong.push(world.refused(&other(2, r#""out":"OUTPUT""#), &not).await);
    assert_eq!(wrong.into_iter().flatten().collect::<Vec<_>>(), [""; 0]);
    assert_eq!(world.shown(&other(3, r#""out":null"#)).await.unwrap(), "mine\n");
}

/// An input of a derivation of its own, of which it has no more than the name.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_taken_over_an_evaluator_has_no_input_of_anothers() {
    let world = World::new(planted!()).await;
    world.claim(&world.source);
    let not_its_own = format!("it comes to {}{NOT_ITS_OWN}", world.source);
    let thief = |n: usize| {
        let input = "dir = builtins.storePath \"SOURCE\";";
        builder(&format!("thief-{n}"), input, "$b cat $dir > $out").replace('\'', "'\\''")
    };
    let ways = [
        // Nothing there.
        "true",
        "echo other > SOURCE",
        // As many bytes.
        "printf huntr2hunter22 > SOURCE",
        "mkdir SOURCE",
        "mkfifo SOURCE",
        // As the driver sees it, the node's.
        "ln -s SOURCE SOURCE",
    ];
    let mut wrong = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        let script = format!("rm -rf SOURCE; {way}; run '{}' \"$@\"", thief(n));
        wrong.extend(world.refused(&script, &not_its_own).await);
    }
    assert_eq!(wrong, [""; 0]);
    // Who has its text needs no name.
    let script =
        format!("rm -rf SOURCE; printf {MARK} > SOURCE; run '{}' \"$@\"", thief(ways.len()));
    assert_eq!(world.shown(&script).await.unwrap(), MARK);
    // It was seen, and is known by what is in it.
    let script = format!("rm -rf SOURCE; run '{}' \"$@\"", thief(ways.len() + 1));
    assert_eq!(world.shown(&script).await.unwrap(), MARK);
}
