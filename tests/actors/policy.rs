//! The operator's policy: who is refused, when, and what nobody takes away.

use std::sync::Arc;
use std::time::Duration;

use nix_csi::actors::policy::{Known, PolicyError};
use nix_csi::actors::volume::VolumeError;
use nix_csi::health::Condition;
use nix_csi::model::{PodInfo, Source};
use tokio::time::sleep;

use crate::world::{Settings, World, id, request, target, with_world};

/// Lets everything that can run, run.
pub async fn settle() {
    sleep(Duration::from_secs(1)).await;
}

pub fn write(world: &World, text: &str) {
    world.api.set_config(Some([("policy.yaml".to_owned(), text.to_owned())].into()));
}

pub async fn publish(
    world: &World,
    name: &str,
    namespace: &str,
    source: &Source,
) -> Result<(), Arc<VolumeError>> {
    let mut request = request(name, source);
    let pod = PodInfo { namespace: namespace.to_owned(), ..PodInfo::default() };
    request.spec.pod = Some(pod);
    world.actors.directory.publish(&id(name), request).await
}

/// The rule that refuses it.
async fn refused(world: &World, name: &str, namespace: &str, source: &Source) -> String {
    let error = publish(world, name, namespace, source).await.unwrap_err();
    match &*error {
        VolumeError::Policy(PolicyError::Refused { refusal, .. }) => refusal.rule.clone(),
        other => panic!("refused for another reason: {other}"),
    }
}

fn flake(world: &World, reference: &str) -> Source {
    let root = world.nix.add_closure("app", 3).unwrap();
    let source = Source::FlakeRef(format!("{reference}?rev={:0>40}", 1));
    world.nix.answer(source.clone(), root, nix_csi::nix::Origin::Built);
    source
}

const TEAM: &str = "preset: strict\nnamespaces: {team: {flakeRef: [\"github:team/\"]}}\n";

#[tokio::test(start_paused = true)]
async fn each_namespace_has_what_it_is_allowed() {
    with_world(|mut world| async move {
        write(&world, TEAM);
        world.heeds_policy();
        settle().await;
        let ours = flake(&world, "github:team/app");
        let theirs = flake(&world, "github:other/app");
        publish(&world, "a", "team", &ours).await.unwrap();
        assert_eq!(refused(&world, "b", "team", &theirs).await, "namespaces.team.flakeRef");
        assert_eq!(refused(&world, "b", "web", &ours).await, "preset strict, flakeRef");
        // Nothing of it is left, and nobody was asked to build it.
        assert_eq!(world.nix.calls(&theirs).evaluated, 0);
        assert_eq!((world.mounts.mounted(), world.names("records").len()), (1, 1));
        assert_eq!(world.actors.directory.status().await.len(), 1);
        // A person is the operator.
        world.publish("p", &theirs).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_counts_at_once_and_what_is_mounted_stays() {
    with_world(|mut world| async move {
        write(&world, TEAM);
        world.heeds_policy();
        settle().await;
        let ours = flake(&world, "github:team/app");
        publish(&world, "a", "team", &ours).await.unwrap();
        write(&world, "preset: strict");
        settle().await;
        assert_eq!(refused(&world, "b", "team", &ours).await, "preset strict, flakeRef");
        // As the kubelet does after its restart.
        publish(&world, "a", "team", &ours).await.unwrap();
        assert_eq!(world.mounts.mounted(), 1);
        // Somebody unmounted it: it is the same volume still.
        world.mounts.lose_mount(&target("a"));
        publish(&world, "a", "team", &ours).await.unwrap();
        world.unpublish("a").await.unwrap();
        assert_eq!(refused(&world, "a", "team", &ours).await, "preset strict, flakeRef");
        write(&world, "preset: open");
        settle().await;
        publish(&world, "a", "team", &ours).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_while_it_is_built_is_not_mounted() {
    with_world(|mut world| async move {
        write(&world, "preset: open");
        world.heeds_policy();
        settle().await;
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let publishing = publish(&world, "a", "team", &source);
        let changing = async {
            settle().await;
            write(&world, "preset: strict");
            settle().await;
            gate.release();
        };
        let (published, ()) = tokio::join!(publishing, changing);
        let error = published.unwrap_err().to_string();
        assert!(error.contains("(preset strict, nixExpr)"), "{error}");
        settle().await;
        assert_eq!((world.mounts.mounted(), world.names("records").len()), (0, 0));
        assert!(world.actors.directory.status().await.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_none_or_gone_leaves_the_last_good_one() {
    with_world(|mut world| async move {
        write(&world, TEAM);
        world.heeds_policy();
        settle().await;
        let theirs = flake(&world, "github:other/app");
        for broken in ["preset: lax", "", "preset: strict\nnamespaces: {team: {flakeRef: [x]}}"] {
            write(&world, broken);
            settle().await;
            assert_eq!(refused(&world, "b", "team", &theirs).await, "namespaces.team.flakeRef");
            let (condition, reason) = world.health.overall();
            assert!(matches!(condition, Condition::Impaired(_)), "{condition:?}");
            assert!(reason.contains("policy: ConfigMap nix-csi/policy: "), "{reason}");
        }
        world.api.set_config(Some([("other".to_owned(), String::new())].into()));
        settle().await;
        assert!(world.health.overall().1.contains("it has no key policy.yaml"));
        world.api.set_config(None);
        settle().await;
        assert_eq!(refused(&world, "b", "team", &theirs).await, "namespaces.team.flakeRef");
        assert!(world.health.overall().1.contains("is gone; the last good policy counts"));
        // In the next process, too.
        world.heeds_policy();
        settle().await;
        assert_eq!(refused(&world, "b", "team", &theirs).await, "namespaces.team.flakeRef");
        write(&world, "preset: open");
        settle().await;
        publish(&world, "b", "team", &theirs).await.unwrap();
        assert_eq!(world.health.overall().0, Condition::Ready);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_one_everything_is_allowed_once_that_is_known() {
    with_world(|mut world| async move {
        world.api.hide_config("forbidden by the test");
        world.heeds_policy();
        settle().await;
        let source = flake(&world, "github:other/app");
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(matches!(&*error, VolumeError::Policy(PolicyError::Awaited { .. })), "{error}");
        assert!(error.to_string().contains("forbidden by the test"), "{error}");
        let (condition, reason) = world.health.overall();
        assert!(matches!(condition, Condition::Impaired(_)), "{condition:?}");
        assert!(reason.contains("policy: the watch of ConfigMap nix-csi/policy broke"), "{reason}");
        // Whoever is known already does not wait.
        world.publish("p", &source).await.unwrap();
        write(&world, "preset: open");
        settle().await;
        publish(&world, "a", "team", &source).await.unwrap();
        // And in the next process nobody waits for the API server.
        world.heeds_policy();
        settle().await;
        publish(&world, "b", "team", &source).await.unwrap();
        assert!(matches!(world.actors.policy.report().known, Known::Policy(_)));
    })
    .await;
    with_world(|mut world| async move {
        world.heeds_policy();
        settle().await;
        let source = flake(&world, "github:other/app");
        publish(&world, "a", "team", &source).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_last_good_policy_that_cant_be_read_is_no_absence() {
    with_world(|mut world| async move {
        std::fs::write(world.dir.path().join("policy.yaml"), "preset: newer").unwrap();
        world.heeds_policy();
        settle().await;
        let source = flake(&world, "github:other/app");
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(matches!(&*error, VolumeError::Policy(PolicyError::Awaited { .. })), "{error}");
        let (condition, reason) = world.health.overall();
        assert!(matches!(condition, Condition::Impaired(_)), "{condition:?}");
        assert!(
            reason.contains("the last good policy") && reason.contains("preset: open"),
            "{reason}"
        );
        write(&world, "preset: open");
        settle().await;
        publish(&world, "a", "team", &source).await.unwrap();
        assert_eq!(world.health.overall().0, Condition::Ready);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_has_so_many_volumes_and_no_more() {
    with_world(|mut world| async move {
        write(&world, "preset: open\ndefault: {maxVolumes: 2}");
        world.heeds_policy();
        settle().await;
        let source = flake(&world, "github:team/app");
        let names = ["a", "b", "c", "d"];
        let all = names.map(|name| publish(&world, name, "team", &source));
        let all = futures::future::join_all(all).await;
        assert_eq!(all.iter().filter(|published| published.is_ok()).count(), 2);
        let error = all.iter().find_map(|published| published.as_ref().err()).unwrap().to_string();
        assert!(error.contains("it has 2 volumes on this node already"), "{error}");
        publish(&world, "e", "web", &source).await.unwrap();
        // Those that there are count in the next process.
        world.actors = world.restarted_with(Settings { policy: true, ..Settings::default() });
        settle().await;
        assert_eq!(refused(&world, "f", "team", &source).await, "default.maxVolumes");
        let mounted =
            names.into_iter().zip(&all).find(|(_, published)| published.is_ok()).unwrap().0;
        world.unpublish(mounted).await.unwrap();
        publish(&world, "f", "team", &source).await.unwrap();
        assert_eq!(refused(&world, "g", "team", &source).await, "default.maxVolumes");
    })
    .await;
}
