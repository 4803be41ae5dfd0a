//! Views: shared, kept, evicted, never from below a mount.

use std::time::Duration;

use nix_csi::actors::volume::{ViewError, VolumeError};
use nix_csi::mount::MountError;
use nix_csi::mount::fake::Op;
use nix_csi::nix::{NixError, fake::Call};

use crate::world::{KEEP_IDLE, store_path, with_world};

#[tokio::test(start_paused = true)]
async fn volumes_of_a_closure_share_one_view() {
    with_world(|world| async move {
        let root = world.nix.add_closure("hello", 5).unwrap();
        let source = store_path(&root);
        let (a, b) = tokio::join!(world.publish("a", &source), world.publish("b", &source));
        a.unwrap();
        b.unwrap();
        assert_eq!(world.mounts.calls(Op::CreateView), 1);
        assert_eq!(world.nix.calls(&source).started, 0, "a valid path needs no process");
        let views = world.actors.views.list().await;
        assert_eq!((views.len(), views[0].users), (1, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_view_goes_with_its_root_and_a_used_one_stays() {
    with_world(|world| async move {
        let source = store_path(&world.nix.add_closure("hello", 5).unwrap());
        world.publish("a", &source).await.unwrap();
        tokio::time::sleep(3 * KEEP_IDLE).await;
        assert_eq!(world.names("roots/views").len(), 1, "a mounted view stays");

        world.unpublish("a").await.unwrap();
        tokio::time::sleep(KEEP_IDLE / 2).await;
        assert_eq!(world.names("roots/views").len(), 1, "kept for the next volume");
        tokio::time::sleep(KEEP_IDLE).await;
        assert!(world.names("roots/views").is_empty());
        assert!(world.actors.views.list().await.is_empty());

        world.publish("b", &source).await.unwrap();
        assert_eq!(world.mounts.calls(Op::CreateView), 2);
    })
    .await;
}

/// Defect 15 of the contract: what can't be removed keeps its root.
#[tokio::test(start_paused = true)]
async fn a_view_that_cant_be_removed_keeps_its_root() {
    with_world(|world| async move {
        let source = store_path(&world.nix.add_closure("hello", 5).unwrap());
        world.publish("a", &source).await.unwrap();
        let id = world.actors.views.list().await[0].view.id.clone();
        world.unpublish("a").await.unwrap();
        world.mounts.fail_next(Op::RemoveView, MountError::ViewInUse { id });
        tokio::time::sleep(KEEP_IDLE + Duration::from_secs(60)).await;
        assert_eq!(world.mounts.calls(Op::RemoveView), 1);
        assert_eq!(world.names("roots/views").len(), 1);
        // It is looked at again later, and it serves again meanwhile.
        world.publish("b", &source).await.unwrap();
        world.unpublish("b").await.unwrap();
        tokio::time::sleep(2 * KEEP_IDLE + Duration::from_secs(60)).await;
        assert!(world.names("roots/views").is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_view_leaves_no_root_and_the_next_try_is_free() {
    with_world(|world| async move {
        let source = store_path(&world.nix.add_closure("hello", 5).unwrap());
        let full = MountError::NoSpace { path: "/views".into() };
        world.mounts.fail_next(Op::CreateView, full);
        let error = world.publish("a", &source).await.unwrap_err();
        assert_eq!(error.to_string(), "present failed: no space left on the file system of /views");
        assert!(world.names("roots/views").is_empty());

        world.nix.fail_call(Call::Closure, || NixError::Command {
            what: "the query".into(),
            detail: "busy".into(),
        });
        let error = world.publish("a", &source).await.unwrap_err();
        let VolumeError::View(inner) = &*error else { panic!("{error}") };
        assert!(matches!(**inner, ViewError::Store(NixError::Command { .. })));
        assert!(world.names("roots/views").is_empty());

        world.nix.heal(Call::Closure);
        world.publish("a", &source).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_path_is_reported_and_the_next_volume_gets_a_new_view() {
    with_world(|world| async move {
        let root = world.nix.add_closure("hello", 5).unwrap();
        let source = store_path(&root);
        world.publish("a", &source).await.unwrap();
        world.mounts.replace_path(&root);
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert_eq!(world.actors.views.list().await[0].replaced, [root]);
        world.publish("b", &source).await.unwrap();
        assert_eq!(world.actors.views.list().await.len(), 2);
    })
    .await;
}
