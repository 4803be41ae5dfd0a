//! Builds: joined, bounded, cancelled.

use std::time::Duration;

use nix_csi::actors::builds::BuildEvent;
use nix_csi::actors::volume::VolumeError;
use nix_csi::model::Source;
use nix_csi::nix::{Lock, RealiseError, Stage, Step};
use tokio::time::Instant;

use crate::world::{ABANDON_AFTER, CANCEL_GRACE, REFRESH, RETRY, with_world};

/// Lets everything that can run, run: on paused time the clock moves only when nothing else can.
async fn settle() {
    let until = Instant::now() + Duration::from_secs(1);
    tokio::time::sleep_until(until).await;
}

#[tokio::test(start_paused = true)]
async fn identical_requests_share_one_realisation() {
    with_world(|world| async move {
        let (one, other) = (world.buildable("one"), world.buildable("other"));
        let gate = world.nix.hold(one.clone());
        let fifty: Vec<String> = (0..50).map(|n| format!("v{n}")).collect();
        let waiting = futures::future::join_all(fifty.iter().map(|v| world.publish(v, &one)));
        let release = async {
            settle().await;
            world.publish("other", &other).await.unwrap();
            assert_eq!(world.mounts.mounted(), 1, "others don't wait for this build");
            gate.release();
        };
        let (published, ()) = tokio::join!(waiting, release);
        assert!(published.iter().all(Result::is_ok));
        assert_eq!(world.nix.calls(&one).started, 1);
        assert_eq!(world.mounts.mounted(), 51);
        settle().await;
        assert!(world.names("roots/builds").is_empty(), "the views hold the roots now");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn unpublish_overtakes_and_cancels_what_nobody_else_waits_for() {
    with_world(|world| async move {
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let overtake = async {
            settle().await;
            world.unpublish("a").await.unwrap();
            settle().await;
            assert_eq!(world.nix.calls(&source).cancelled, 0, "b still waits");
            world.unpublish("b").await.unwrap();
            settle().await;
            assert_eq!(world.nix.calls(&source).cancelled, 0, "who comes back joins");
            tokio::time::sleep(CANCEL_GRACE).await;
        };
        let (a, b, ()) =
            tokio::join!(world.publish("a", &source), world.publish("b", &source), overtake);
        for result in [a, b] {
            assert!(matches!(*result.unwrap_err(), VolumeError::Overtaken));
        }
        assert_eq!(world.nix.calls(&source).cancelled, 1);
        assert!(world.names("roots/builds").is_empty());
        drop(gate);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slots_bound_what_runs_at_once() {
    with_world(|world| async move {
        let sources: Vec<Source> =
            ["a", "b", "c"].iter().map(|name| world.buildable(name)).collect();
        let gates: Vec<_> = sources.iter().map(|source| world.nix.hold(source.clone())).collect();
        let publishes = futures::future::join_all(
            sources.iter().zip(["a", "b", "c"]).map(|(s, name)| world.publish(name, s)),
        );
        let watch = async {
            settle().await;
            let begun: u32 =
                sources.iter().map(|s| u32::from(world.nix.calls(s).started > 0)).sum();
            assert_eq!(begun, 2, "two slots");
            let waiting = world.actors.builds.list().await;
            let queued = waiting
                .iter()
                .filter(|b| b.progress.current == "waiting for a build slot, 1st of 1");
            assert_eq!(queued.count(), 1);
            for gate in gates {
                gate.release();
            }
        };
        let (published, ()) = tokio::join!(publishes, watch);
        assert!(published.iter().all(Result::is_ok));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_reaches_every_waiter_and_leaves_nothing() {
    with_world(|world| async move {
        let source = Source::NixExpr("bad".to_owned());
        world.nix.fail(source.clone(), || RealiseError::Refused {
            step: Step::Evaluate,
            cause: "undefined variable 'x'".to_owned(),
            hint: None,
        });
        let (a, b) = tokio::join!(world.publish("a", &source), world.publish("b", &source));
        for result in [a, b] {
            assert_eq!(
                result.unwrap_err().to_string(),
                "evaluate failed after 0.0 s: undefined variable 'x'"
            );
        }
        assert!(world.names("records").is_empty());
        assert!(world.names("roots/builds").is_empty());
        settle().await;
        assert!(world.actors.directory.status().await.is_empty(), "failed volumes are forgotten");
    })
    .await;
}

/// A kubelet that calls again finds its build; one that never does leaves none.
#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_joined_by_the_next_and_forgotten_after_long() {
    with_world(|world| async move {
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        for _ in 0..3 {
            let call = tokio::time::timeout(Duration::from_secs(120), world.publish("a", &source));
            assert!(call.await.is_err());
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        let calls = world.nix.calls(&source);
        assert_eq!((calls.evaluated, calls.started, calls.cancelled), (1, 1, 0));
        // A call that waits is not forgotten, however long it waits.
        let held = tokio::time::timeout(3 * ABANDON_AFTER, world.publish("a", &source));
        assert!(held.await.is_err());
        assert_eq!(world.nix.calls(&source).cancelled, 0);
        tokio::time::sleep(2 * ABANDON_AFTER + CANCEL_GRACE).await;
        assert_eq!(world.nix.calls(&source).cancelled, 1);
        settle().await;
        assert!(world.actors.directory.status().await.is_empty());
        assert!(world.names("roots/builds").is_empty());
        drop(gate);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_within_the_grace_joins() {
    with_world(|world| async move {
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let others = async {
            settle().await;
            world.unpublish("a").await.unwrap();
            tokio::time::sleep(CANCEL_GRACE / 2).await;
            let back = async {
                tokio::time::sleep(2 * CANCEL_GRACE).await;
                gate.release();
            };
            let (back, ()) = tokio::join!(world.publish("b", &source), back);
            back.unwrap();
        };
        let (overtaken, ()) = tokio::join!(world.publish("a", &source), others);
        assert!(matches!(*overtaken.unwrap_err(), VolumeError::Overtaken));
        let calls = world.nix.calls(&source);
        assert_eq!((calls.started, calls.finished, calls.cancelled), (1, 1, 0));
    })
    .await;
}

fn failing(world: &crate::world::World, name: &str) -> Source {
    let source = Source::NixExpr(name.to_owned());
    let root = world.nix.add_closure(name, 1).unwrap();
    world.nix.answer(source.clone(), root, nix_csi::nix::Origin::Built);
    world.nix.fail(source.clone(), || RealiseError::BuildFailed {
        derivation: "bad".to_owned(),
        cause: "builder failed with exit code 1".to_owned(),
        hint: None,
        log_tail: vec!["the end".to_owned()],
    });
    source
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_not_tried_again_at_once() {
    with_world(|world| async move {
        let source = failing(&world, "bad");
        let text = "build of bad failed after 0.0 s: builder failed with exit code 1\nlast lines of \
                    its log:\n  the end";
        let fail = async || world.publish("a", &source).await.unwrap_err().to_string();
        assert_eq!(fail().await, text);
        let early = "not tried again for 10 s: `nix-csi builds retry` does it at once";
        assert_eq!(fail().await, format!("{text}\n{early}"));
        assert_eq!(world.nix.calls(&source).started, 1);
        // Of another volume too: it is the same request.
        assert!(world.publish("b", &source).await.is_err());
        assert_eq!(world.nix.calls(&source).started, 1);

        tokio::time::sleep(RETRY).await;
        assert_eq!(fail().await, text);
        assert_eq!(world.nix.calls(&source).started, 2);
        let [failure] = &world.actors.builds.failures()[..] else { panic!("one failure") };
        assert_eq!((failure.times, failure.again_in), (2, 2 * RETRY));
        assert_eq!(world.actors.builds.forgive(|of, _| *of == source), 1);
        assert_eq!(fail().await, text);
        assert_eq!(world.nix.calls(&source).started, 3);
        // Another source has nothing to do with it.
        let other = world.buildable("good");
        world.publish("a", &other).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_failed_is_asked_again_at_once() {
    with_world(|world| async move {
        let source = world.buildable("far");
        world.nix.fail(source.clone(), || RealiseError::Temporary {
            step: Step::Fetch,
            cause: "no route".to_owned(),
        });
        for n in 1..4 {
            world.publish("a", &source).await.unwrap_err();
            assert_eq!(world.nix.calls(&source).started, n);
        }
        assert!(world.actors.builds.failures().is_empty());
    })
    .await;
}

/// Ten pods of a Deployment get the same result, and a new push is seen soon.
#[tokio::test(start_paused = true)]
async fn a_mutable_flake_is_looked_up_once_in_a_while() {
    with_world(|world| async move {
        let mutable = Source::FlakeRef("github:o/r#x".to_owned());
        let push = |revision: &str| {
            let reference = format!("github:o/r?narHash={revision}#x");
            let locked = Source::FlakeRef(reference.clone());
            let root = world.nix.add_closure(revision, 2).unwrap();
            world.nix.answer(locked.clone(), root, nix_csi::nix::Origin::Built);
            let revision = Some(revision.to_owned());
            world.nix.lock_to("github:o/r#x", Lock { reference, inputs: String::new(), revision });
            locked
        };
        let revisions = async || -> Vec<_> {
            world.actors.directory.status().await.into_iter().map(|v| v.revision.unwrap()).collect()
        };
        let first = push("one");
        for n in 0..10 {
            world.publish(&format!("v{n}"), &mutable).await.unwrap();
        }
        assert_eq!(world.nix.calls(&mutable).locked, 1);
        assert_eq!(world.nix.calls(&first).evaluated, 1);
        let second = push("two");
        world.publish("w0", &mutable).await.unwrap();
        assert!(revisions().await.iter().all(|r| r == "one"), "within the minute nothing is asked");

        tokio::time::sleep(REFRESH).await;
        world.publish("w1", &mutable).await.unwrap();
        assert_eq!(world.nix.calls(&second).evaluated, 1);
        assert_eq!(revisions().await.last().unwrap(), "two");
        // Nobody answers: what it named last is better than nothing.
        world.nix.forget_lock("github:o/r#x");
        tokio::time::sleep(REFRESH).await;
        world.publish("w3", &mutable).await.unwrap();
        assert_eq!(revisions().await.last().unwrap(), "two");
        // The first is what it was: a volume keeps its resolution.
        world.publish("v0", &mutable).await.unwrap();
        assert_eq!(revisions().await[0], "one");

        // A locked reference is evaluated once.
        tokio::time::sleep(100 * REFRESH).await;
        world.publish("w2", &first).await.unwrap();
        assert_eq!(world.nix.calls(&first).evaluated, 1);
        assert_eq!(world.nix.calls(&first).locked, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn subscribers_hear_of_every_realisation() {
    with_world(|world| async move {
        let (good, bad) = (world.buildable("good"), failing(&world, "bad"));
        let gate = world.nix.hold(good.clone());
        let mut early = world.actors.builds.subscribe().await.unwrap();
        let publishes = async {
            let release = async {
                settle().await;
                // Who comes later hears of what is under way.
                let mut late = world.actors.builds.subscribe().await.unwrap();
                settle().await;
                let Ok(BuildEvent::Changed(build)) = late.recv().await else { panic!("a change") };
                assert_eq!((build.source, build.progress.stage), (good.clone(), Stage::Building));
                gate.release();
            };
            let (published, failed, ()) =
                tokio::join!(world.publish("a", &good), world.publish("b", &bad), release);
            published.unwrap();
            failed.unwrap_err();
        };
        publishes.await;
        let mut ends = Vec::new();
        while let Ok(event) = early.try_recv() {
            if let BuildEvent::Ended { build, error } = event {
                ends.push((build.source, error.map(|e| e.lines().next().unwrap().to_owned())));
            }
        }
        let error = "build of bad failed after 0.0 s: builder failed with exit code 1".to_owned();
        assert_eq!(ends, [(bad, Some(error)), (good, None)]);
    })
    .await;
}
