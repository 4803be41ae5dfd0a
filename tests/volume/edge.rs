//! The edge: how long a call is held, and how many may wait.

use std::time::Duration;

use nix_csi::grpc::client::Code;
use tokio::time::timeout;

use crate::lab;
use crate::world::{Gate, code, until};

/// A person's patience, for calls that must not wait for a build.
const QUICK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_held_call_is_answered_with_its_progress_and_the_next_one_joins() {
    let lab = lab!();
    let gate = Gate::new(&lab, "held");
    let node = lab.node(&["--hold", "1s"]).await;
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    let error = node.publish(&volume).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    let text = error.message();
    assert!(text.starts_with("still being published: "), "{text}");
    assert!(text.ends_with(" s; the next call joins it"), "{text}");

    gate.started().await;
    gate.open();
    until("the retry to succeed", async || node.publish(&volume).await.is_ok()).await;
    assert_eq!(gate.runs(), 1);
    node.unpublish(&volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_wait_leave_room_for_everything_else() {
    let lab = lab!();
    let gate = Gate::new(&lab, "full");
    let root = lab.closure(&[]);
    let node = lab.node(&["--max-publishes", "1"]).await;
    let ready = lab.volume("ready", &[("storePath", &root)]);
    node.publish(&ready).await.unwrap();

    let slow = lab.volume("slow", &[("nixExpr", &gate.expression())]);
    let refused = lab.volume("refused", &[("storePath", &root)]);
    let others = async {
        gate.started().await;
        let error = timeout(QUICK, node.publish(&refused)).await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        let told = "1 publishes are already waiting (--max-publishes): try again later";
        assert_eq!(error.message(), told);
        assert!(timeout(QUICK, node.probe()).await.unwrap().unwrap());
        timeout(QUICK, node.stats(&ready)).await.unwrap().unwrap();
        timeout(QUICK, node.unpublish(&ready)).await.unwrap().unwrap();
        gate.open();
    };
    let (published, ()) = tokio::join!(node.publish(&slow), others);
    published.unwrap();
    assert_eq!(code(node.publish(&refused).await), Code::Ok);
}
