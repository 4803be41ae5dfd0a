//! What a volume's life writes into a node's log, and what many failures do.

use crate::lab;
use crate::lab::{Lab, Node, Volume};
use crate::world::{NO_IDLE, publish_all, volumes};

/// What was said of volumes, realisations and views from this byte of the log on.
fn said(node: &Node, from: usize) -> Vec<String> {
    let of_a_volume = |line: &&str| {
        let rooms = ["volume", "builds", "views"];
        rooms.iter().any(|room| line.contains(&format!(" nix_csi::actors::{room}::")))
    };
    node.log()[from..].lines().filter(of_a_volume).map(str::to_owned).collect()
}

/// The lines of one volume's life, in order.
async fn life(lab: &Lab, node: &Node, volume: &Volume, wanted: &[&str]) {
    let from = node.log().len();
    node.publish(volume).await.unwrap();
    // A kubelet publishes again, and says nothing new by it.
    node.publish(volume).await.unwrap();
    node.unpublish(volume).await.unwrap();
    lab::until("the last line", async || node.log()[from..].contains(": unpublished ")).await;
    let lines = said(node, from);
    assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
    for (line, wanted) in lines.iter().zip(wanted) {
        assert!(line.contains(" INFO ") && line.contains(&format!(": {wanted} ")), "{lines:#?}");
        let names = if wanted.starts_with("realis") { "number=" } else { &*volume.id };
        assert!(line.contains(names), "{lines:#?}");
    }
    assert!(lab.mount_lines_below(&lab.path("targets")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volumes_life_is_five_lines() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let built = ["publishing", "realising", "realised", "published", "unpublished"];
    let there = ["publishing", "published", "unpublished"];
    let expression = "derivation { name = \"own\"; system = builtins.currentSystem; \
        builder = \"/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }";
    for (name, kind, source, wanted) in [
        ("there", "storePath", &*root, &there[..]),
        ("cold", "nixExpr", expression, &built),
        ("warm", "nixExpr", expression, &there),
    ] {
        life(&lab, &node, &lab.volume(name, &[(kind, source)]), wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_failures_write_few_lines_and_say_how_many_more() {
    const MANY: usize = 60;
    let lab = lab!();
    let mut node = lab.node(NO_IDLE).await;
    let none = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-none";
    let all = volumes(&lab, "failing", &[("storePath", none)], MANY);
    for result in publish_all(&node, &all).await {
        result.unwrap_err();
    }
    let failures = || node.log().matches(": publish failed volume=").count();
    lab::until("the log", async || failures() >= 10).await;
    let suppressed =
        || node.metric::<usize>("nixcsi_log_suppressed_total{level=\"warn\"}").unwrap();
    lab::until("all to be counted", async || suppressed() >= MANY - 10).await;
    assert_eq!(failures(), 10, "{}", node.log());
    assert_eq!(suppressed(), MANY - 10);
    assert_eq!(node.stop(), Some(0));
    let log = node.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains(" more like it within ")).collect();
    assert_eq!(told.len(), 1, "{log}");
    let count = format!("… and {} more like it within ", MANY - 10);
    assert!(told[0].contains(&count) && told[0].contains("publish failed volume="), "{log}");
}
