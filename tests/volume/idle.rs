//! Views without volumes.

use std::path::Path;

use crate::lab;
use crate::lab::eventually;
use crate::world::{NO_IDLE, assert_nothing_left, assert_shows};

const ROOTS: &str = "/nix/var/nix/gcroots/nix-csi/views";

/// Defect 6: a view's root is its own, from before its layer until after its last mount.
#[tokio::test(flavor = "multi_thread")]
async fn a_views_root_lives_until_after_its_last_mount() {
    let lab = lab!();
    let root = lab.unrooted(&[]);
    let node = lab.node(NO_IDLE).await;
    let (one, two) =
        (lab.volume("one", &[("storePath", &root)]), lab.volume("two", &[("storePath", &root)]));
    node.publish(&one).await.unwrap();
    node.publish(&two).await.unwrap();
    node.unpublish(&one).await.unwrap();
    let links = lab.names(ROOTS);
    assert_eq!(links.len(), 1);
    assert_eq!(lab.ok("readlink", &[&format!("{ROOTS}/{}", links[0])]), root);
    let live = lab.ok("nix-store", &["--gc", "--print-live"]);
    assert!(live.lines().any(|line| line == root));
    lab.ok("nix-store", &["--gc"]);
    assert_shows(&lab, &two, &root);
    node.unpublish(&two).await.unwrap();
    assert_nothing_left(&lab);
    lab.ok("nix-store", &["--gc"]);
    assert!(!lab.run("ls", &[&root]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_view_is_kept_for_a_while_and_found_again() {
    let lab = lab!();
    let root = lab.unrooted(&[]);
    let node = lab.node(&["--keep-idle", "1h"]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    let view = node.status().await.views.remove(0).view_id;
    node.unpublish(&volume).await.unwrap();
    lab.ok("nix-store", &["--gc"]);
    let idle = node.status().await.views.remove(0);
    assert_eq!((idle.view_id.as_str(), idle.users), (view.as_str(), 0));
    node.publish(&volume).await.unwrap();
    assert_eq!(node.status().await.views[0].view_id, view);
    assert_shows(&lab, &volume, &root);
    node.unpublish(&volume).await.unwrap();
    node.kill();

    // The next node takes it over, and drops it in its own time.
    let node = lab.node(&["--keep-idle", "1h"]).await;
    assert_eq!(node.status().await.views[0].view_id, view);
    assert_eq!(lab.mounts_below(Path::new("/nix/var/nix-csi/views")).len(), 1);
    node.kill();
    let _node = lab.node(&["--keep-idle", "300ms"]).await;
    eventually("the view to go", || lab.names(ROOTS).is_empty());
    assert_nothing_left(&lab);
}
