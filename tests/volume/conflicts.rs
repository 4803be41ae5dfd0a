//! Calls that repeat, contradict or overtake each other.

use std::fs::File;

use nix_csi::grpc::client::Code;
use nix_csi::grpc::proto::admin::StatusResponse;

use crate::lab;
use crate::world::{
    NO_IDLE, assert_all_ok, assert_nothing_left, assert_shows, code, leftovers, publish_all,
    target_mounts, unpublish_all, volumes,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_publish_changes_nothing_and_another_is_refused() {
    let lab = lab!();
    let (root, other) = (lab.closure(&[]), lab.closure(&["--argstr", "seed", "other"]));
    let node = lab.node(NO_IDLE).await;
    for writable in [false, true] {
        let mut volume = lab.volume("one", &[("storePath", &root)]);
        volume.readonly = !writable;
        node.publish(&volume).await.unwrap();
        let mounts = lab.mount_lines_below(&lab.path("targets"));
        assert_eq!(mounts.len(), 1);
        node.publish(&volume).await.unwrap();
        assert_eq!(lab.mount_lines_below(&lab.path("targets")), mounts);

        let mut changed = volume.clone();
        changed.attributes = lab::attrs(&[("storePath", &other)]);
        assert_eq!(code(node.publish(&changed).await), Code::AlreadyExists);
        changed = volume.clone();
        changed.readonly = !changed.readonly;
        assert_eq!(code(node.publish(&changed).await), Code::AlreadyExists);
        changed = volume.clone();
        changed.target = lab.target("elsewhere");
        assert_eq!(code(node.publish(&changed).await), Code::FailedPrecondition);
        assert_eq!(code(node.unpublish(&changed).await), Code::FailedPrecondition);
        // The kubelet's own keys are not the user's wish.
        changed = volume.clone();
        let key = "csi.storage.k8s.io/serviceAccount.tokens";
        changed.attributes.insert(key.to_owned(), "new".to_owned());
        node.publish(&changed).await.unwrap();

        assert_eq!(lab.mount_lines_below(&lab.path("targets")), mounts);
        assert_shows(&lab, &volume, &root);
        node.unpublish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
        assert_eq!(leftovers(&lab), [""; 0]);
    }
    node.unpublish(&lab.volume("unknown", &[])).await.unwrap();
    assert_nothing_left(&lab);
}

/// Defects 2 and 3: a new kubelet publishes what runs; nothing is rebuilt, nothing stacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_kubelet_publishes_twenty_volumes_again() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let mut all = volumes(&lab, "pod", &[("storePath", &root)], 20);
    all.iter_mut().skip(15).for_each(|v| v.readonly = false);
    assert_all_ok(&publish_all(&node, &all).await);
    let mounts = lab.mount_lines_below(lab.dir.path());
    let published =
        |s: &StatusResponse| s.volumes.iter().map(|v| v.published_at).collect::<Vec<_>>();
    let before = published(&node.status().await);
    for _ in 0..3 {
        assert_all_ok(&publish_all(&node, &all).await);
    }
    assert_eq!(lab.mount_lines_below(lab.dir.path()), mounts);
    assert_eq!(published(&node.status().await), before);
    // Told and counted once each.
    assert_eq!(node.log().matches(": published volume=").count(), 20);
    let metrics = node.metrics();
    let counted = "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"storePath\",warm=";
    let counts = metrics.lines().filter(|line| line.starts_with(counted));
    let counts = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(counts.sum::<u64>(), 20, "{metrics}");
    assert_all_ok(&unpublish_all(&node, &all).await);
    assert_eq!(leftovers(&lab), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_unpublish_together_never_stack() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    for round in 0..40 {
        if round % 2 == 0 {
            node.publish(&volume).await.unwrap();
        }
        let (published, unpublished, again) =
            tokio::join!(node.publish(&volume), node.unpublish(&volume), node.publish(&volume));
        unpublished.unwrap();
        for result in [published, again] {
            let code = code(result);
            assert!(matches!(code, Code::Ok | Code::Aborted), "{code}");
        }
        assert!(target_mounts(&lab).len() <= 1);
        node.unpublish(&volume).await.unwrap();
        assert_eq!(leftovers(&lab), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_somebody_took_away_is_presented_again() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(NO_IDLE).await;
    for writable in [false, true] {
        let mut volume = lab.volume("one", &[("storePath", &root)]);
        volume.readonly = !writable;
        node.publish(&volume).await.unwrap();
        lab.ok("umount", &[volume.target.to_str().unwrap()]);
        node.publish(&volume).await.unwrap();
        assert_shows(&lab, &volume, &root);
        assert_eq!(target_mounts(&lab).len(), 1);
        // The directory too, as a person who tidies up would.
        lab.ok("umount", &[volume.target.to_str().unwrap()]);
        lab.ok("rmdir", &[volume.target.to_str().unwrap()]);
        node.publish(&volume).await.unwrap();
        assert_shows(&lab, &volume, &root);
        lab.ok("umount", &[volume.target.to_str().unwrap()]);
        node.unpublish(&volume).await.unwrap();
    }
    assert_nothing_left(&lab);
}

/// Defect 15: what is still used is still rooted and recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_volume_stays_until_its_user_is_gone() {
    let lab = lab!();
    let root = lab.unrooted(&[]);
    let node = lab.node(NO_IDLE).await;
    for writable in [false, true] {
        let mut volume = lab.volume("one", &[("storePath", &root)]);
        volume.readonly = !writable;
        node.publish(&volume).await.unwrap();
        let file = volume.target.join(root.strip_prefix("/nix/").unwrap()).join("etc/marker");
        let user = lab.inside(|| File::open(&file).unwrap());
        assert_eq!(code(node.unpublish(&volume).await), Code::Unavailable);
        lab.ok("nix-store", &["--gc"]);
        assert_shows(&lab, &volume, &root);
        assert_eq!(lab.names("/nix/var/nix/gcroots/nix-csi/views").len(), 1);
        assert_eq!(node.status().await.volumes.len(), 1);
        node.publish(&volume).await.unwrap();
        assert_eq!(target_mounts(&lab).len(), 1);
        drop(user);
        node.unpublish(&volume).await.unwrap();
        if !writable {
            // Kept for the second round, in which the view may be a new one.
            assert_eq!(lab.unrooted(&[]), root);
        }
    }
    assert_nothing_left(&lab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_mount_is_refused_and_untouched() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(NO_IDLE).await;
    for writable in [false, true] {
        let mut volume = lab.volume("taken", &[("storePath", &root)]);
        volume.readonly = !writable;
        let target = volume.target.to_str().unwrap();
        lab.ok("mkdir", &[target]);
        lab.ok("mount", &["-t", "tmpfs", "somebody", target]);
        lab.ok("touch", &[&format!("{target}/theirs")]);
        let mounts = lab.mount_lines_below(&lab.path("targets"));

        assert_eq!(code(node.publish(&volume).await), Code::FailedPrecondition);
        assert_ne!(code(node.unpublish(&volume).await), Code::Ok);
        assert_eq!(lab.mount_lines_below(&lab.path("targets")), mounts);
        assert_eq!(lab.names(target), ["theirs"]);
        lab.ok("umount", &[target]);
        node.unpublish(&volume).await.unwrap();
        assert_nothing_left(&lab);
    }
}

/// Volumes are mounts of their own; the next one needs the view's again.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_somebody_unmounted_is_mounted_again() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let before = lab.volume("before", &[("storePath", &root)]);
    node.publish(&before).await.unwrap();
    let view = node.status().await.views[0].view_id.clone();
    lab.ok("umount", &[&format!("/nix/var/nix-csi/views/{view}/mnt")]);
    for volume in [
        lab.volume("ro", &[("storePath", &root)]),
        lab.volume("rw", &[("storePath", &root)]).writable(),
    ] {
        node.publish(&volume).await.unwrap();
        assert_shows(&lab, &volume, &root);
        node.unpublish(&volume).await.unwrap();
        lab.run("umount", &[&format!("/nix/var/nix-csi/views/{view}/mnt")]);
    }
    assert_shows(&lab, &before, &root);
}
