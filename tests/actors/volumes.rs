//! Volumes: failures that clean up, restarts that lose nothing.

use std::fs;
use std::time::Duration;

use nix_csi::actors::volume::VolumeError;
use nix_csi::model::Source;
use nix_csi::mount::MountError;
use nix_csi::mount::fake::Op;

use crate::world::{World, id, request, store_path, target, with_world};

fn hello(world: &World) -> Source {
    store_path(&world.nix.add_closure("hello", 5).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_failed_mount_cleans_up() {
    with_world(|world| async move {
        let source = hello(&world);
        world.mounts.fail_next(Op::Attach, MountError::NoParent { target: target("a") });
        let error = world.publish("a", &source).await.unwrap_err();
        assert!(matches!(*error, VolumeError::Mount(MountError::NoParent { .. })), "{error}");
        assert!(world.names("records").is_empty());
        world.publish("a", &source).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_clean_up_is_gone_on_with() {
    with_world(|world| async move {
        let source = hello(&world);
        world.mounts.fail_next(Op::Attach, MountError::NoSpace { path: "/volumes".into() });
        world.mounts.fail_next(Op::Detach, MountError::Busy { target: target("a") });
        let error = world.publish("a", &source).await.unwrap_err();
        assert!(matches!(*error, VolumeError::HalfDone { .. }), "{error}");
        assert_eq!(world.names("records"), ["a.json"], "the record says what is half done");
        world.publish("a", &source).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
        world.unpublish("a").await.unwrap();
        assert!(world.names("records").is_empty());
    })
    .await;
}

/// Defects 2 and 3 of the contract: nothing stacks, and a failure does not touch a live volume.
#[tokio::test(start_paused = true)]
async fn a_repeated_publish_only_looks() {
    with_world(|world| async move {
        let source = hello(&world);
        world.publish("a", &source).await.unwrap();
        for _ in 0..3 {
            world.publish("a", &source).await.unwrap();
        }
        assert_eq!(world.mounts.calls(Op::Attach), 1);
        world.mounts.fail_next(Op::Attached, MountError::Foreign { target: target("a") });
        world.publish("a", &source).await.unwrap_err();
        assert_eq!(world.mounts.mounted(), 1);
        assert_eq!(world.names("records"), ["a.json"]);
        world.mounts.lose_mount(&target("a"));
        world.publish("a", &source).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_unpublish_loses_nothing() {
    with_world(|world| async move {
        let source = hello(&world);
        world.publish("a", &source).await.unwrap();
        world.mounts.set_busy(&target("a"), true);
        let error = world.unpublish("a").await.unwrap_err();
        assert!(matches!(*error, VolumeError::Mount(MountError::Busy { .. })), "{error}");
        assert_eq!((world.mounts.mounted(), world.names("records").len()), (1, 1));
        assert_eq!(world.names("roots/views").len(), 1);
        world.mounts.set_busy(&target("a"), false);
        world.unpublish("a").await.unwrap();
        assert_eq!((world.mounts.mounted(), world.names("records").len()), (0, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_adopts_what_is_mounted_and_clears_what_is_not() {
    with_world(|world| async move {
        let source = hello(&world);
        for name in ["kept", "lost", "other-boot"] {
            world.publish(name, &source).await.unwrap();
        }
        world.mounts.lose_mount(&target("lost"));
        let record = world.records().join("other-boot.json");
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, text.replace("\"boot\"", "\"before\"")).unwrap();
        world.mounts.lose_mount(&target("other-boot"));

        let next = world.restarted();
        next.directory.recovered().await.unwrap();
        let ids: Vec<_> =
            next.directory.status().await.into_iter().map(|s| (s.id, s.state)).collect();
        assert_eq!(ids, [(id("kept"), "mounted")]);
        assert_eq!(world.names("records"), ["kept.json"]);

        next.directory.publish(&id("kept"), request("kept", &source)).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
        next.directory.unpublish(&id("kept"), target("kept")).await.unwrap();
        assert_eq!(world.mounts.mounted(), 0);
    })
    .await;
}

/// Defect 10 of the contract.
#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_kept_and_its_mount_untouched() {
    with_world(|world| async move {
        let source = hello(&world);
        world.publish("a", &source).await.unwrap();
        fs::write(world.records().join("a.json"), "{").unwrap();

        let next = world.restarted();
        next.directory.recovered().await.unwrap();
        assert_eq!(next.directory.unreadable().len(), 1);
        assert_eq!((world.mounts.mounted(), world.names("records").len()), (1, 1));
        let error = next.directory.publish(&id("a"), request("a", &source)).await.unwrap_err();
        assert!(matches!(*error, VolumeError::UnreadableRecord { .. }), "{error}");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(world.mounts.mounted(), 1);

        next.directory.unpublish(&id("a"), target("a")).await.unwrap();
        assert_eq!(world.mounts.mounted(), 0);
        assert_eq!(world.names("records"), ["a.unreadable"], "kept for a person to read");
        assert!(next.directory.unreadable().is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unpublish_of_nothing_succeeds_and_leaves_no_actor() {
    with_world(|world| async move {
        world.unpublish("never").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(world.actors.directory.status().await.is_empty());
    })
    .await;
}

/// To the kernel two volumes of one closure at one target look alike.
#[tokio::test(start_paused = true)]
async fn a_target_belongs_to_one_volume() {
    with_world(|world| async move {
        let source = hello(&world);
        let directory = &world.actors.directory;
        directory.publish(&id("a"), request("a", &source)).await.unwrap();
        let taken = "target_path /t/a has volume a on it: unpublish that one, or choose another";
        let error = directory.publish(&id("b"), request("a", &source)).await.unwrap_err();
        assert_eq!(error.to_string(), taken);
        let error = directory.unpublish(&id("b"), target("a")).await.unwrap_err();
        assert_eq!(error.to_string(), taken);
        assert_eq!(world.mounts.mounted(), 1);

        let next = world.restarted();
        next.directory.recovered().await.unwrap();
        next.directory.unpublish(&id("b"), target("a")).await.unwrap_err();
        next.directory.unpublish(&id("a"), target("a")).await.unwrap();
        next.directory.publish(&id("b"), request("a", &source)).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
    })
    .await;
}

/// Not recognised is not "not mounted": a pod may live on it.
#[tokio::test(start_paused = true)]
async fn a_mount_that_a_restart_does_not_recognise_is_left_alone() {
    with_world(|world| async move {
        let source = hello(&world);
        world.publish("a", &source).await.unwrap();
        world.mounts.lose_mount(&target("a"));
        world.mounts.mount_foreign(&target("a"));
        let next = world.restarted();
        next.directory.recovered().await.unwrap();
        assert_eq!(world.names("records"), ["a.json"]);
        let told = next.directory.unreadable();
        assert_eq!(told[0].path, world.records().join("a.json"));
        assert!(told[0].reason.starts_with("the mount at /t/a is not of its view "));
        next.directory.publish(&id("a"), request("a", &source)).await.unwrap_err();
        assert_eq!(world.names("records"), ["a.json"]);
    })
    .await;
}

/// The next volume may come to the same target as soon as the unpublish is answered.
#[tokio::test(start_paused = true)]
async fn a_target_is_free_when_its_unpublish_is_answered() {
    with_world(|world| async move {
        let source = hello(&world);
        let directory = &world.actors.directory;
        for n in 0..20 {
            let volume = id(&format!("v{n}"));
            directory.publish(&volume, request("a", &source)).await.unwrap();
            directory.unpublish(&volume, target("a")).await.unwrap();
        }
    })
    .await;
}
