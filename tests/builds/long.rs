//! A build that takes longer than a call.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Gate, Kubelet, NO_IDLE, Pace};
use crate::world::{assert_ends, assert_told_at_once};

/// Real: a build of 3 minutes, and a call's limit of 2.
const BUILD: u64 = 180;

/// The first call is held to its end, which `hold` decides, and a later one gets the result.
async fn published_by_a_later_call(hold: u64, first: Code) {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let gate = Gate::new(&lab, "long");
    let expression = gate.timed(pace.seconds(BUILD));
    let hold = format!("{}ms", pace.seconds(hold).as_millis());
    let node = lab.node(&[NO_IDLE, &["--hold", &hold]].concat()).await;
    let volume = lab.volume("pod", &[("nixExpr", &expression)]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    let last = kubelet.until_published().await;
    // On a busy machine a short build may outlast a second call.
    let codes = kubelet.codes();
    let (before, calls) = (&codes[..codes.len() - 1], kubelet.calls());
    assert!(matches!(before.len(), 1 | 2) && before.iter().all(|c| *c == first), "{calls:#?}");
    assert_told_at_once(&last, &gate);
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_call_is_aborted_and_the_next_one_gets_the_result() {
    published_by_a_later_call(100, Code::Aborted).await;
}

/// A driver that holds longer than the kubelet waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_deadline_ends_leaves_the_build_to_the_next_one() {
    published_by_a_later_call(600, Code::DeadlineExceeded).await;
}

/// A kubelet that dies soon after its call, twice; its successor calls again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_leaves_the_build_to_the_next_one() {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let gate = Gate::new(&lab, "long");
    let expression = gate.timed(pace.seconds(BUILD / 2));
    let node = lab.node(NO_IDLE).await;
    let volume = lab.volume("pod", &[("nixExpr", &expression)]);
    for seconds in [2, 20] {
        let kubelet = Kubelet::new(&node, &volume, pace);
        let call = kubelet.cancel_after(pace.seconds(seconds)).await;
        assert_eq!(call.code, Code::Cancelled, "{call:?}");
    }
    let kubelet = Kubelet::new(&node, &volume, pace);
    let last = kubelet.until_published().await;
    assert_told_at_once(&last, &gate);
    assert_eq!((kubelet.codes(), gate.runs()), (vec![Code::Ok], 1));
    assert_ends(&lab, &node, &volume).await;
}
