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

/// A deletion stops in the middle: it is ended, and with it its hold on Nix's lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_stops_half_way_is_ended_and_gone_on_with() {
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
    let half_deleted = || strays(&lab).iter().any(|name| name.contains("-large-"));
    let deletion = || {
        let all = lab.processes();
        // A guard has the same arguments.
        let is_it = |line: &&String| {
            let program = line.split(' ').nth(2);
            program.is_some_and(|program| program.ends_with("nix-store"))
                && line.contains(" --delete ")
        };
        all.iter().find(is_it).cloned()
    };
    lab::eventually("a deletion to stop", || {
        let Some(found) = deletion().filter(|_| half_deleted()) else {
            return false;
        };
        let number = found.split(' ').next().unwrap();
        // It may have ended meanwhile.
        lab.run("kill", &["-STOP", number]);
        let stopped = format!("{number} T ");
        half_deleted() && lab.processes().iter().any(|line| line.starts_with(&stopped))
    });
    node.ready().await;
    failures(&node, 1).await;
    assert!(node.log().contains("deleting took longer than 1s"), "{}", node.log());
    assert_serves(&lab, &node, "meanwhile", &there).await;
    node.unpublish(&mounted).await.unwrap();
    recovers(&lab, &node, &gone).await;
    until("the half deleted path to be gone", async || !half_deleted()).await;
}
