//! A program that uploads instead of Nix.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lab;
use crate::lab::{Lab, until};
use crate::world::{
    RECORDS, ROOTS, all_sent, buildable, closure, collect, derivations, error, listed, root,
    uploads,
};

/// Notes that it runs, waits until it is let, and notes what it was given.
struct Program {
    dir: std::path::PathBuf,
}

impl Program {
    fn new(lab: &Lab) -> Self {
        let program = Self { dir: lab.path("program") };
        fs::create_dir(&program.dir).unwrap();
        let dir = program.dir.display();
        program.is(&format!(
            "echo $# >> {dir}/runs\nwhile [ ! -e {dir}/open ]; do sleep 0.02; done\n\
             cat > {dir}/got.$$ && cat {dir}/got.$$ >> {dir}/got"
        ));
        program
    }

    fn is(&self, script: &str) {
        fs::write(self.dir.join("up"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.dir.join("up"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn setting(&self) -> [String; 2] {
        ["--upload-command".to_owned(), self.dir.join("up").to_str().unwrap().to_owned()]
    }

    fn open(&self) {
        fs::write(self.dir.join("open"), "").unwrap();
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn runs(&self, times: usize) {
        until("the program to run", async || self.lines("runs").len() >= times).await;
    }

    fn processes(&self, lab: &Lab) -> Vec<String> {
        let needle = self.dir.join("up").to_str().unwrap().to_owned();
        lab.processes().into_iter().filter(|line| line.contains(&needle)).collect()
    }
}

/// The driver is killed in the middle of an upload: its program ends with it, the closure is held, and
/// the next driver uploads it, whole and once.
#[tokio::test(flavor = "multi_thread")]
async fn is_told_the_closure_also_after_the_driver_was_killed() {
    let lab = lab!();
    let program = Program::new(&lab);
    let [flag, value] = program.setting();
    let node = lab.node(&[&flag, &value]).await;
    let volume = buildable(&lab, "app", 100);
    node.publish(&volume).await.unwrap();
    program.runs(1).await;
    let paths = closure(&lab, &volume);
    let list = listed(&lab, &node);
    assert_eq!(list["uploads"][0]["path"], root(&paths, "app"));
    assert_eq!(list["uploads"][0]["state"], "sending");
    assert_eq!(list["destination"], &*value);
    node.unpublish(&volume).await.unwrap();
    node.kill();
    until("the program to end with the driver", async || program.processes(&lab).is_empty()).await;
    assert_eq!((lab.names(RECORDS).len(), lab.names(ROOTS).len()), (1, 1));
    lab.ok("nix-store", &["--gc"]);

    let node = lab.node(&[&flag, &value]).await;
    program.runs(2).await;
    assert_eq!(program.lines("runs"), ["0", "0"], "no arguments");
    program.open();
    all_sent(&lab, &node).await;
    let mut got = program.lines("got");
    got.sort();
    assert_eq!(got, paths);
}

/// A derivation waits for its turn like any path, and no collector takes it until then.
#[tokio::test(flavor = "multi_thread")]
async fn is_told_what_derivations_need() {
    let lab = lab!();
    let program = Program::new(&lab);
    let [flag, value] = program.setting();
    let node = lab.node(&[&flag, &value, "--upload-derivations"]).await;
    let volume = buildable(&lab, "app", 100);
    node.publish(&volume).await.unwrap();
    program.runs(1).await;
    let outputs = closure(&lab, &volume);
    let (derivation, inputs) = derivations(&lab, root(&outputs, "app"));
    until("the derivation to wait", async || lab.names(ROOTS).len() == 2).await;
    assert_eq!(listed(&lab, &node)["uploads"][1]["path"], *derivation);
    node.unpublish(&volume).await.unwrap();
    collect(&lab);
    program.open();
    all_sent(&lab, &node).await;
    let mut got = program.lines("got");
    got.sort();
    let mut all = [outputs, inputs].concat();
    all.sort();
    assert_eq!(got, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn may_end_what_it_does_at_shutdown() {
    let lab = lab!();
    let program = Program::new(&lab);
    let [flag, value] = program.setting();
    let mut node = lab.node(&[&flag, &value, "--grace", "20s"]).await;
    let volume = buildable(&lab, "app", 100);
    node.publish(&volume).await.unwrap();
    program.runs(1).await;
    let log = node.log.clone();
    let stopped = tokio::task::spawn_blocking(move || node.stop());
    until("the node to stop", async || {
        fs::read_to_string(&log).unwrap().contains("stopping; mounts stay")
    })
    .await;
    program.open();
    assert_eq!(stopped.await.unwrap(), Some(0));
    assert_eq!(program.lines("got").len(), 2);
    assert!(lab.names(RECORDS).is_empty(), "{:?}", lab.names(RECORDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn is_told_of_more_than_a_pipe_holds() {
    let lab = lab!();
    let program = Program::new(&lab);
    program.open();
    let [flag, value] = program.setting();
    let node = lab.node(&[&flag, &value]).await;
    // Few paths with long names.
    let name = "long".repeat(45);
    let expression = format!(
        r#"derivation {{
          name = "all";
          system = builtins.currentSystem;
          builder = "/bin/sh";
          files = builtins.genList (n: builtins.toFile "{name}-${{toString n}}" (toString n)) 320;
          args = [ "-c" "echo $files > $out" ];
        }}"#
    );
    let volume = lab.volume("pod", &[("nixExpr", &expression)]);
    node.publish(&volume).await.unwrap();
    all_sent(&lab, &node).await;
    let mut got = program.lines("got");
    got.sort();
    assert_eq!(got, closure(&lab, &volume));
    assert!(got.concat().len() > 64 << 10, "{} paths", got.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn says_why_it_failed_and_is_tried_again() {
    let lab = lab!();
    let program = Program::new(&lab);
    program.is("echo 'the quota is used up' >&2; exit 3");
    let [flag, value] = program.setting();
    let node = lab.node(&[&flag, &value, "--upload-attempts", "1"]).await;
    let volume = buildable(&lab, "app", 100);
    node.publish(&volume).await.unwrap();
    let why = error(&lab, &node).await;
    assert_eq!(why, format!("refused: {value}: exit code 3: the quota is used up"));
    let (_, text) = uploads(&lab, &node, &[]);
    assert!(text.contains("0 waiting, 0 sending, 1 dead"), "{text}");
    assert!(text.contains("the quota is used up"), "{text}");

    program.is(&format!("cat > {}/got", program.dir.display()));
    let (ok, text) = uploads(&lab, &node, &["retry", "/nix/store/nonsense"]);
    assert!(!ok && text.contains("is not a store path"), "{text}");
    let (ok, text) = uploads(&lab, &node, &["retry"]);
    assert!(ok && text == "1 upload is tried again now\n", "{text}");
    all_sent(&lab, &node).await;
    let mut got = program.lines("got");
    got.sort();
    assert_eq!(got, closure(&lab, &volume));
    let (ok, text) = uploads(&lab, &node, &["retry", &got[0]]);
    assert!(!ok && text.contains("no upload waits for that path"), "{text}");
}
