//! Builds that many volumes wait for.

use futures::future::join_all;

use crate::lab;
use crate::lab::{
    Gate, Kubelet, Pace, assert_all_ok, assert_nothing_left, target_mounts, unpublish_all, until,
    volumes,
};
use crate::world::{assert_no_strays, node_with, paced};

#[tokio::test(flavor = "multi_thread")]
async fn sixty_volumes_of_two_expressions_run_two_builds() {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let gates = ["fifty", "ten"].map(|name| Gate::new(&lab, name));
    let [fifty, ten] = gates.each_ref().map(Gate::expression);
    let node = node_with(&lab, &paced(pace)).await;
    let mut all = volumes(&lab, "fifty", &[("nixExpr", &fifty)], 50);
    all.extend(volumes(&lab, "ten", &[("nixExpr", &ten)], 10));
    let kubelets: Vec<_> = all.iter().map(|v| Kubelet::new(&node, v, pace)).collect();

    let published = join_all(kubelets.iter().map(Kubelet::until_published));
    let opened = async {
        // Each volume has waited for a whole call, and waits with its next one.
        until("everybody to wait", async || {
            let waits = |kubelet: &Kubelet| !kubelet.calls().is_empty();
            kubelets.iter().all(waits) && gates.iter().all(|gate| gate.runs() > 0)
        })
        .await;
        gates.iter().for_each(Gate::open);
    };
    tokio::join!(published, opened);
    kubelets.iter().for_each(Kubelet::assert_only_retryable);
    assert_eq!(gates.each_ref().map(Gate::runs), [1, 1]);
    assert_eq!(target_mounts(&lab).len(), 60);
    let mut users: Vec<_> = node.status().await.views.iter().map(|view| view.users).collect();
    users.sort_unstable();
    assert_eq!(users, [10, 50]);

    assert_all_ok(&unpublish_all(&node, &all).await);
    assert_nothing_left(&lab);
    assert_no_strays(&lab).await;
}
