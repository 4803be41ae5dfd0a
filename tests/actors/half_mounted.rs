//! The policy of a volume that is in the middle: it is asked again before that goes on.

use std::sync::Arc;

use nix_csi::actors::policy::PolicyError;
use nix_csi::actors::volume::VolumeError;
use nix_csi::model::Source;
use nix_csi::mount::MountError;
use nix_csi::mount::fake::Op;

use crate::policy::{heed, publish, settle, write};
use crate::world::{Settings, World, target, with_world};

/// A volume `a` of namespace `team` that is neither mounted nor gone, and its source.
async fn half_mounted(world: &mut World) -> Source {
    heed(world, "preset: open").await;
    let source = world.buildable("app");
    fails_half_way(world);
    let error = publish(world, "a", "team", &source).await.unwrap_err();
    assert!(matches!(*error, VolumeError::HalfDone { .. }), "{error}");
    assert_eq!((world.mounts.mounted(), world.names("records").len()), (0, 1));
    source
}

/// The next mount fails, and so does what cleans up after it.
fn fails_half_way(world: &World) {
    world.mounts.fail_next(Op::Attach, MountError::NoSpace { path: "/volumes".into() });
    world.mounts.fail_next(Op::Detach, MountError::Busy { target: target("a") });
}

fn is_refused(error: &Arc<VolumeError>) -> bool {
    matches!(&**error, VolumeError::Policy(PolicyError::Refused { .. }))
}

/// Nothing is mounted, and nothing left.
fn assert_gone(world: &World) {
    assert_eq!((world.mounts.mounted(), world.names("records").len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_by_then_is_taken_away() {
    with_world(|mut world| async move {
        let source = half_mounted(&mut world).await;
        write(&world, "preset: strict");
        settle().await;
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        // Not final, since something may still be there.
        assert!(matches!(*error, VolumeError::TakenBack { .. }), "{error}");
        assert!(error.to_string().contains("(preset strict, nixExpr)"), "{error}");
        settle().await;
        assert_gone(&world);
        assert!(world.actors.directory.status().await.is_empty());
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(is_refused(&error), "{error}");
        write(&world, "preset: open");
        settle().await;
        publish(&world, "a", "team", &source).await.unwrap();
    })
    .await;
}

/// Each try that fails so leaves it in the middle.
#[tokio::test(start_paused = true)]
async fn what_is_allowed_still_goes_on_and_is_asked_until_it_is_there() {
    with_world(|mut world| async move {
        let source = half_mounted(&mut world).await;
        fails_half_way(&world);
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(matches!(*error, VolumeError::HalfDone { .. }), "{error}");
        // What can't be taken away stays as it is, and is not mounted either.
        write(&world, "preset: strict");
        settle().await;
        world.mounts.fail_next(Op::Detach, MountError::Busy { target: target("a") });
        for _ in 0..2 {
            let error = publish(&world, "a", "team", &source).await.unwrap_err();
            assert!(matches!(*error, VolumeError::TakenBack { .. }), "{error}");
            settle().await;
        }
        assert_gone(&world);
        write(&world, "preset: open");
        settle().await;
        fails_half_way(&world);
        publish(&world, "a", "team", &source).await.unwrap_err();
        publish(&world, "a", "team", &source).await.unwrap();
        assert_eq!(world.nix.calls(&source).started, 1);
        // Now it is a whole one, which stays.
        write(&world, "preset: strict");
        settle().await;
        publish(&world, "a", "team", &source).await.unwrap();
        world.mounts.lose_mount(&target("a"));
        publish(&world, "a", "team", &source).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_resolved_with_more_in_sight_than_is_allowed_by_then_is_resolved_anew() {
    with_world(|mut world| async move {
        let source = half_mounted(&mut world).await;
        write(&world, "preset: open\ndefault: {storePath: public}");
        settle().await;
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(error.to_string().contains("shows less of the store"), "{error}");
        settle().await;
        assert_gone(&world);
        publish(&world, "a", "team", &source).await.unwrap();
        assert_eq!(world.nix.calls(&source).evaluated, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_must_be_signed_by_then_is_looked_at() {
    with_world(|mut world| async move {
        let source = half_mounted(&mut world).await;
        write(&world, "preset: open\nnamespaces: {team: {signed: true}}");
        settle().await;
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(error.to_string().contains("(namespaces.team.signed)"), "{error}");
        settle().await;
        assert_gone(&world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_next_process_asks_too() {
    with_world(|mut world| async move {
        let source = half_mounted(&mut world).await;
        write(&world, "preset: strict");
        settle().await;
        world.actors = world.restarted_with(Settings { policy: true, ..Settings::default() });
        settle().await;
        assert_gone(&world);
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(is_refused(&error), "{error}");
        // What can't be taken away then is nobody's to go on with.
        write(&world, "preset: open");
        settle().await;
        fails_half_way(&world);
        publish(&world, "a", "team", &source).await.unwrap_err();
        write(&world, "preset: strict");
        settle().await;
        world.mounts.fail_next(Op::Detach, MountError::Busy { target: target("a") });
        world.actors = world.restarted_with(Settings { policy: true, ..Settings::default() });
        settle().await;
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(matches!(*error, VolumeError::UnreadableRecord { .. }), "{error}");
        assert_eq!(world.mounts.mounted(), 0);
    })
    .await;
}

/// As on a node that joins while the `ConfigMap` can't be read: what is taken away is gone, and to wait costs
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_policy_that_is_not_known_yet_takes_nothing_away() {
    with_world(|mut world| async move {
        let source = world.buildable("app");
        publish(&world, "a", "team", &source).await.unwrap();
        let required = Settings { policy: true, policy_required: true, ..Settings::default() };
        world.actors = world.restarted_with(required);
        settle().await;
        world.mounts.lose_mount(&target("a"));
        world.mounts.fail_next(Op::Detach, MountError::Busy { target: target("a") });
        world.unpublish("a").await.unwrap_err();
        for _ in 0..2 {
            let error = publish(&world, "a", "team", &source).await.unwrap_err();
            assert!(matches!(*error, VolumeError::HalfDone { .. }), "{error}");
            assert!(error.to_string().contains("the policy is not known"), "{error}");
            settle().await;
            assert_eq!((world.mounts.mounted(), world.names("records").len()), (0, 1));
        }
        write(&world, "preset: open");
        settle().await;
        publish(&world, "a", "team", &source).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
        assert_eq!(world.nix.calls(&source).started, 1);
    })
    .await;
}
