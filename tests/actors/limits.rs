//! What the policy leaves a namespace of the node's slots, and what may wait for them.

use futures::future::join_all;
use nix_csi::actors::volume::VolumeError;
use nix_csi::model::Source;
use nix_csi::nix::Stage;

use crate::policy::{heed, publish, settle, write};
use crate::world::{MAX_WAITING, World, with_world};

/// What a person reads of who waits for this.
async fn told(world: &World, source: &Source) -> String {
    let builds = world.actors.builds.list().await;
    builds.into_iter().find(|build| build.source == *source).unwrap().progress.current
}

fn started(world: &World, source: &Source) -> usize {
    world.nix.calls(source).started
}

#[tokio::test(start_paused = true)]
async fn a_namespace_at_its_limit_waits_and_a_policy_that_allows_more_lets_it_go_on() {
    with_world(|mut world| async move {
        heed(&mut world, "preset: open\nnamespaces: {web: {maxBuilds: 1}}").await;
        let sources = ["a", "b", "c"].map(|name| world.buildable(name));
        let [a, b, c] = &sources;
        let gates = sources.each_ref().map(|source| world.nix.hold(source.clone()));
        let watch = async {
            settle().await;
            // Of two slots.
            assert_eq!(sources.each_ref().map(|source| started(&world, source)), [1, 0, 1]);
            let rule = "namespaces.web.maxBuilds of the policy: 1 at once";
            let waits = format!("waiting for a build slot, 1st of 1 ({rule})");
            assert_eq!(told(&world, b).await, waits);
            let [first, second, third] = gates;
            third.release();
            settle().await;
            assert_eq!(started(&world, b), 0, "a slot is free, and not for it");
            write(&world, "preset: open\nnamespaces: {web: {maxBuilds: 2}}");
            settle().await;
            assert_eq!(started(&world, b), 1);
            first.release();
            second.release();
        };
        let (one, two, three, ()) = tokio::join!(
            publish(&world, "a", "web", a),
            publish(&world, "b", "web", b),
            publish(&world, "c", "ci", c),
            watch
        );
        [one, two, three].into_iter().for_each(Result::unwrap);
    })
    .await;
}

/// Or who has a long queue would hold up whatever it thinks that others want.
#[tokio::test(start_paused = true)]
async fn nobody_waits_in_the_queue_of_another_namespace() {
    with_world(|mut world| async move {
        heed(&mut world, "preset: open\nnamespaces: {web: {maxBuilds: 1}}").await;
        let (long, wanted) = (world.buildable("long"), world.buildable("wanted"));
        let gate = world.nix.hold(long.clone());
        let watch = async {
            settle().await;
            publish(&world, "c", "ci", &wanted).await.unwrap();
            assert_eq!((started(&world, &long), started(&world, &wanted)), (1, 1));
            // What is built already is waited for.
            let joins = publish(&world, "d", "ci", &long);
            let release = async {
                settle().await;
                let builds = world.actors.builds.list().await;
                let stages = builds.iter().map(|build| (build.volumes.len(), build.progress.stage));
                let stages: Vec<_> = stages.collect();
                assert_eq!(stages, [(2, Stage::Building), (1, Stage::QueuedBuild)]);
                gate.release();
            };
            tokio::join!(joins, release).0.unwrap();
        };
        let (one, two, ()) = tokio::join!(
            publish(&world, "a", "web", &long),
            publish(&world, "b", "web", &wanted),
            watch
        );
        one.unwrap();
        two.unwrap();
        assert_eq!(started(&world, &long), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn so_many_volumes_of_a_namespace_wait_and_no_more() {
    with_world(|mut world| async move {
        world.heeds_policy();
        settle().await;
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let names: Vec<String> = (0..MAX_WAITING).map(|n| format!("v{n}")).collect();
        let waiting = join_all(names.iter().map(|name| publish(&world, name, "web", &source)));
        let watch = async {
            settle().await;
            let refused = publish(&world, "more", "web", &source).await.unwrap_err();
            assert!(matches!(*refused, VolumeError::Overloaded(_)), "{refused}");
            let told = format!(
                "{MAX_WAITING} volumes of namespace web are already waiting (--max-waiting): try again later"
            );
            assert_eq!(refused.to_string(), told);
            // Others may, and people, and who need not wait.
            let there = world.buildable("there");
            publish(&world, "other", "ci", &there).await.unwrap();
            publish(&world, "warm", "web", &there).await.unwrap();
            let person = world.publish("person", &source);
            let release = async {
                settle().await;
                gate.release();
            };
            tokio::join!(person, release).0.unwrap();
        };
        let (published, ()) = tokio::join!(waiting, watch);
        published.into_iter().for_each(Result::unwrap);
        publish(&world, "more", "web", &world.buildable("next")).await.unwrap();
    })
    .await;
}
