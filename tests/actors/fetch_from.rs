//! Whom the policy lets a namespace fetch from: what is waited for together, and what is remembered.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use nix_csi::actors::volume::VolumeError;
use nix_csi::model::Source;
use nix_csi::nix::RealiseError;

use crate::policy::{self, heed, settle, write};
use crate::world::{World, with_world};

const POLICY: &str = "preset: open\nnamespaces:\n  web: {substituters: [\"https://a.example\"]}\n  \
                      \"team-*\": {substituters: [\"https://a.example\"]}\n";
const WEB: &str = "the policy's substituters let this namespace fetch from https://a.example alone";

fn publish<'a>(
    world: &'a World,
    name: &'a str,
    namespace: &'a str,
    source: &'a Source,
) -> LocalBoxFuture<'a, Result<(), Arc<VolumeError>>> {
    policy::publish(world, name, namespace, source).boxed_local()
}

#[tokio::test(start_paused = true)]
async fn what_may_come_from_elsewhere_is_not_waited_for() {
    with_world(|mut world| async move {
        heed(&mut world, POLICY).await;
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let after = async |name: &str, namespace: &str, seconds: u64| {
            for _ in 0..seconds {
                settle().await;
            }
            publish(&world, name, namespace, &source).await.unwrap();
        };
        let watch = async {
            for _ in 0..9 {
                settle().await;
            }
            assert_eq!(world.nix.asks(&source), [None, Some(WEB.to_owned())]);
            let all = world.actors.builds.list().await;
            assert_eq!(all.iter().map(|build| build.volumes.len()).collect::<Vec<_>>(), [2, 2]);
            gate.release();
        };
        tokio::join!(
            after("a", "one", 0),
            after("b", "web", 2),
            after("c", "other", 4),
            after("d", "web", 6),
            watch
        );
        // What is there already is nobody's to fetch.
        after("e", "team-a", 0).await;
        assert_eq!(world.nix.calls(&source).started, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_counts_is_the_policy_at_the_time_of_the_fetch() {
    with_world(|mut world| async move {
        heed(&mut world, "preset: open\ndefault: {maxBuilds: 1}").await;
        let (slow, next) = (world.buildable("slow"), world.buildable("next"));
        let (gate, held) = (world.nix.hold(slow.clone()), world.nix.hold(next.clone()));
        let changes = async {
            settle().await;
            settle().await;
            assert_eq!(world.actors.builds.list().await.len(), 2);
            // One waits for a slot while less is allowed: it asks less.
            write(
                &world,
                &POLICY.replace("preset: open\n", "preset: open\ndefault: {maxBuilds: 1}\n"),
            );
            settle().await;
            gate.release();
            settle().await;
            assert_eq!(world.nix.asks(&next), [Some(WEB.to_owned())]);
            // It is joined by who may no more than that, and not by who may ask everybody by now.
            let joins = publish(&world, "c", "web", &next);
            let apart = async {
                settle().await;
                write(&world, "preset: open\ndefault: {maxBuilds: 2}");
                settle().await;
                let asks = publish(&world, "d", "web", &next);
                let release = async {
                    settle().await;
                    assert_eq!(world.nix.asks(&next), [Some(WEB.to_owned()), None]);
                    held.release();
                };
                tokio::join!(asks, release).0
            };
            tokio::join!(joins, apart)
        };
        let (one, two, (three, four)) = tokio::join!(
            publish(&world, "a", "web", &slow),
            async {
                settle().await;
                publish(&world, "b", "web", &next).await
            },
            changes
        );
        [one, two, three, four].into_iter().for_each(Result::unwrap);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_who_may_not_fetch_from_everywhere_is_told_to_no_other() {
    with_world(|mut world| async move {
        heed(&mut world, POLICY).await;
        let source = world.buildable("missing");
        world.nix.fail(source.clone(), || RealiseError::BuildFailed {
            derivation: "missing".to_owned(),
            cause: "no".to_owned(),
            hint: None,
            log_tail: Vec::new(),
        });
        let fails = async |name: &str, namespace: &str| {
            publish(&world, name, namespace, &source).await.unwrap_err();
            world.nix.calls(&source).started
        };
        assert_eq!([fails("a", "web").await, fails("a", "web").await], [1, 1]);
        assert_eq!([fails("b", "other").await, fails("b", "other").await], [2, 2]);
        // Who may ask the same would come to the same.
        assert_eq!(fails("c", "team-a").await, 2);
        // More is allowed: it is tried at once.
        write(&world, "preset: open\nnamespaces: {web: {substituters: false}}");
        settle().await;
        assert_eq!(fails("a", "web").await, 3);
    })
    .await;
}
