//! Builds: joined, bounded, cancelled.

use std::time::Duration;

use nix_csi::actors::volume::VolumeError;
use nix_csi::model::Source;
use nix_csi::nix::{RealiseError, Step};
use tokio::time::Instant;

use crate::world::with_world;

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
            let queued =
                waiting.iter().filter(|b| b.progress.current == "waiting for a build slot");
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
            assert_eq!(result.unwrap_err().to_string(), "evaluate failed: undefined variable 'x'");
        }
        assert!(world.names("records").is_empty());
        assert!(world.names("roots/builds").is_empty());
        settle().await;
        assert!(world.actors.directory.status().await.is_empty(), "failed volumes are forgotten");
    })
    .await;
}
