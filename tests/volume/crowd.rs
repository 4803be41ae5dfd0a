//! Many calls at once, and builds that they share.

use std::time::Duration;

use nix_csi::grpc::client::Code;
use tokio::time::timeout;

use crate::lab;
use crate::lab::eventually;
use crate::world::{
    Gate, NO_IDLE, assert_all_ok, assert_nothing_left, assert_shows, code, leftovers, publish_all,
    target_mounts, unpublish_all, until, volumes,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_volumes_of_three_closures_share_three_views() {
    let lab = lab!();
    let roots = ["a", "b", "c"].map(|seed| lab.closure(&["--argstr", "seed", seed]));
    let node = lab.node(NO_IDLE).await;
    let mut all = Vec::new();
    for (n, root) in roots.iter().enumerate() {
        all.extend(volumes(&lab, &format!("v{n}"), &[("storePath", root)], 34 - n / 2 * 2));
    }
    assert_eq!(all.len(), 100);
    all.iter_mut().step_by(10).for_each(|v| v.readonly = false);
    assert_all_ok(&publish_all(&node, &all).await);

    let status = node.status().await;
    let mut users: Vec<_> = status.views.iter().map(|v| (v.root.clone(), v.users)).collect();
    users.sort();
    let mut expected: Vec<_> = roots.iter().cloned().zip([34, 34, 32]).collect();
    expected.sort();
    assert_eq!(users, expected);
    assert_eq!(target_mounts(&lab).len(), 100);
    for (n, root) in [(0, &roots[0]), (1, &roots[0]), (40, &roots[1]), (99, &roots[2])] {
        assert_shows(&lab, &all[n], root);
    }

    assert_all_ok(&unpublish_all(&node, &all).await);
    assert_nothing_left(&lab);
    assert_eq!(node.status().await.volumes, []);
}

/// Defect 11: whoever asks again joins.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_publishes_of_one_expression_run_one_build() {
    let lab = lab!();
    let gate = Gate::new(&lab, "once");
    let node = lab.node(&[]).await;
    let expression = gate.expression();
    let all = volumes(&lab, "pod", &[("nixExpr", &expression)], 50);
    let published = publish_all(&node, &all);
    let watched = async {
        until("all to wait for one build", async || {
            let builds = node.status().await.builds;
            builds.len() == 1 && builds[0].volumes.len() == 50 && gate.runs() > 0
        })
        .await;
        gate.open();
    };
    let (published, ()) = tokio::join!(published, watched);
    assert_all_ok(&published);
    assert_eq!(gate.runs(), 1);
    let status = node.status().await;
    assert_eq!((status.views.len(), status.views[0].users), (1, 50));
    assert_all_ok(&unpublish_all(&node, &all).await);
    assert_eq!(leftovers(&lab), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unpublish_overtakes_a_build_that_nobody_else_waits_for() {
    let lab = lab!();
    let gate = Gate::new(&lab, "overtaken");
    let node = lab.node(NO_IDLE).await;
    let expression = gate.expression();
    let attributes = [("nixExpr", expression.as_str())];
    let (one, two) = (lab.volume("one", &attributes), lab.volume("two", &attributes));
    let leave = async {
        gate.started().await;
        let quick = Duration::from_secs(5);
        until("both to wait", async || node.status().await.builds[0].volumes.len() == 2).await;
        // The second still waits: the build goes on.
        timeout(quick, node.unpublish(&one)).await.expect("at once").unwrap();
        assert!(!gate.processes(&lab).is_empty());
        assert_eq!(node.status().await.builds.len(), 1);
        timeout(quick, node.unpublish(&two)).await.expect("at once").unwrap();
    };
    let (first, second, ()) = tokio::join!(node.publish(&one), node.publish(&two), leave);
    assert_eq!((code(first), code(second)), (Code::Aborted, Code::Aborted));
    eventually("the build's processes to end", || gate.processes(&lab).is_empty());
    assert_eq!(node.status().await.builds, []);
    assert_nothing_left(&lab);
    assert_eq!(gate.runs(), 1);

    // What was cancelled can be asked for again.
    gate.open();
    node.publish(&one).await.unwrap();
    assert_eq!(gate.runs(), 2);
    node.unpublish(&one).await.unwrap();
    assert_nothing_left(&lab);
}
