//! Defect 12 of an earlier implementation: no collection in 33 hours, because one step had no time limit.

use crate::lab;
use crate::lab::{Lab, Node, until};
use crate::store::{Hanging, garbage, hang, strays};
use crate::world::{EAGER, assert_sound, cycles, valid};

/// More of those that hang than can be there when each has its time to end, which is longer than a step's.
const PILE: usize = 10;

async fn failures(node: &Node, count: u64) {
    until("collections to fail", async || cycles(node, "failed") >= count).await;
}

/// A mount of what is there, one of what is to be built, and the ends of both.
async fn assert_serves(lab: &Lab, node: &Node, name: &str, there: &str) {
    let build = format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo > $out\" ]; }}"
    );
    for (source, of) in [("storePath", there), ("nixExpr", &build)] {
        let volume = lab.volume(name, &[(source, of)]);
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
    }
}

async fn recovers(lab: &Lab, node: &Node, gone: &str) {
    until("the garbage to go", async || !valid(lab).contains(gone)).await;
    let is_well =
        |answer: &str| answer.contains(" 200 OK\r\n") && answer.ends_with("\r\n\r\nready\n");
    until("health to be clear", async || is_well(&node.get("/readyz"))).await;
    assert!(cycles(node, "ok") > 0);
    assert_sound(lab);
}

/// `step` is what the collector says of it.
async fn ends(option: &str, how: &str, step: &str) {
    let lab = lab!();
    let there = lab.closure(&["--argstr", "seed", "there"]);
    let gone = lab.unrooted(&["--argstr", "seed", "gone"]);
    let hanging = Hanging::at(&lab, option, how);
    let (nix, dir) = (hanging.nix(), hanging.dir.to_str().unwrap());
    let limit = ["--gc-step-timeout", "1s", "--nix", &nix, "--eval-path", dir];
    let node = lab.node(&[EAGER, &limit].concat()).await;
    failures(&node, 1).await;
    let why = format!("{step} took longer than 1s");
    let told =
        format!("\r\n\r\nready, but: garbage collection: the last collection failed: {why}\n");
    let answer = node.get("/readyz");
    assert!(answer.contains(" 200 OK\r\n") && answer.ends_with(&told), "{answer}");
    let log = node.log();
    let line = log.lines().find(|line| line.contains("a collection failed"));
    assert!(line.is_some_and(|line| line.contains("ERROR") && line.contains(&why)), "{log}");
    for round in 2..6 {
        assert_serves(&lab, &node, &format!("round{round}"), &there).await;
        failures(&node, round).await;
        let all = hang(&lab);
        assert!(all.len() < PILE, "{all:?}");
    }
    assert!(valid(&lab).contains(&gone));
    hanging.free();
    until("all that hangs to be gone", async || hang(&lab).is_empty()).await;
    recovers(&lab, &node, &gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_12_a_look_for_roots_that_hangs_is_ended() {
    ends("--print-roots", ":", "finding the roots").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_12_a_deletion_that_hangs_is_ended() {
    ends("--delete", "trap '' TERM INT HUP", "deleting").await;
}

/// The daemon's process for a client of which one argument is this.
fn worker_of(lab: &Lab, argument: &str) -> Option<String> {
    let all = lab.processes();
    // A guard has the same arguments.
    let is_client = |line: &&String| line.contains("nix-store ") && line.contains(argument);
    let clients: Vec<&str> =
        all.iter().filter(is_client).filter_map(|line| line.split(' ').next()).collect();
    // Nix puts the client's number among its arguments.
    let is_worker = |line: &&String| {
        let mut words = line.split(' ').skip(2);
        words.next().is_some_and(|program| program.ends_with("nix-daemon"))
            && words.next().is_some_and(|client| clients.contains(&client))
    };
    all.iter().find(is_worker)?.split(' ').next().map(str::to_owned)
}

/// The daemon's half of a deletion stops; its client can be ended, it can't.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_in_a_deletion_is_left() {
    let lab = lab!();
    let there = lab.closure(&["--argstr", "seed", "there"]);
    let gone = lab.unrooted(&["--argstr", "seed", "gone"]);
    // Long enough to be met.
    garbage(&lab, "large", 2, 20_000);
    let node = lab.node(&["--gc-older-than", "1h"]).await;
    let mounted = lab.volume("mounted", &[("storePath", &there)]);
    node.publish(&mounted).await.unwrap();
    node.kill();
    let node = lab.starting_node(&[EAGER, &["--gc-step-timeout", "1s"]].concat());
    let mut worker = String::new();
    let half_deleted = || strays(&lab).iter().any(|name| name.contains("-large-"));
    lab::eventually("a deletion to stop", || {
        let Some(found) = worker_of(&lab, "--delete").filter(|_| half_deleted()) else {
            return false;
        };
        // It may have ended meanwhile.
        lab.run("kill", &["-STOP", &found]);
        worker = found;
        let stopped = format!("{worker} T ");
        half_deleted() && lab.processes().iter().any(|line| line.starts_with(&stopped))
    });
    node.ready().await;
    failures(&node, 3).await;
    assert!(node.log().contains("deleting took longer than 1s"), "{}", node.log());
    assert!(
        node.get("/readyz")
            .contains("ready, but: garbage collection: the last collection failed: ")
    );
    // What has a view needs no daemon.
    let second = lab.volume("second", &[("storePath", &there)]);
    node.publish(&second).await.unwrap();
    node.unpublish(&second).await.unwrap();
    node.unpublish(&mounted).await.unwrap();
    let clients = |line: &String| line.contains("nix-store ");
    assert!(lab.processes().into_iter().filter(clients).count() < PILE);
    lab.ok("kill", &["-CONT", &worker]);
    recovers(&lab, &node, &gone).await;
}
