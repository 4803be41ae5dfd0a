//! The operator's policy: who is refused, when, and what nobody takes away.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix_csi::actors::policy::{Known, PolicyError};
use nix_csi::actors::volume::VolumeError;
use nix_csi::health::Condition;
use nix_csi::model::{PodInfo, Source, StorePath};
use nix_csi::nix::Nix as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::time::sleep;

use crate::world::{Settings, World, id, request, target, with_world};

/// Lets everything that can run, run.
pub async fn settle() {
    sleep(Duration::from_secs(1)).await;
}

pub fn write(world: &World, text: &str) {
    world.api.set_config(Some([("policy.yaml".to_owned(), text.to_owned())].into()));
}

/// From now on that is the policy of a driver that has one.
pub async fn heed(world: &mut World, text: &str) {
    write(world, text);
    world.heeds_policy();
    settle().await;
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

/// A source that is published under `preset: open`, and what came of it with another policy before its end.
async fn built_while_changed_to(
    world: &mut World,
    text: &str,
) -> (Source, Result<(), Arc<VolumeError>>) {
    heed(world, "preset: open").await;
    let source = world.buildable("slow");
    let gate = world.nix.hold(source.clone());
    let publishing = publish(world, "a", "team", &source);
    let changing = async {
        settle().await;
        write(world, text);
        settle().await;
        gate.release();
    };
    let (published, ()) = tokio::join!(publishing, changing);
    (source, published)
}

const TEAM: &str = "preset: strict\nnamespaces: {team: {flakeRef: [\"github:team/\"]}}\n";

#[tokio::test(start_paused = true)]
async fn each_namespace_has_what_it_is_allowed() {
    with_world(|mut world| async move {
        heed(&mut world, TEAM).await;
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
        heed(&mut world, TEAM).await;
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
        let (_, published) = built_while_changed_to(&mut world, "preset: strict").await;
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
        heed(&mut world, TEAM).await;
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

/// As on a node that joins after the `ConfigMap` was deleted.
#[tokio::test(start_paused = true)]
async fn where_one_is_required_nothing_is_mounted_for_pods_without_it() {
    with_world(|mut world| async move {
        let required = Settings { policy: true, policy_required: true, ..Settings::default() };
        world.actors = world.restarted_with(required);
        settle().await;
        let source = flake(&world, "github:other/app");
        let error = publish(&world, "a", "team", &source).await.unwrap_err();
        assert!(matches!(&*error, VolumeError::Policy(PolicyError::Awaited { .. })), "{error}");
        let told = "there is no ConfigMap nix-csi/policy, and --policy-required: to allow everything, \
                    write `preset: open` there";
        assert!(error.to_string().ends_with(told), "{error}");
        let (condition, reason) = world.health.overall();
        assert!(matches!(condition, Condition::Impaired(_)), "{condition:?}");
        assert!(reason.contains(told), "{reason}");
        assert_eq!(world.nix.calls(&source).evaluated, 0);
        // A person is the operator.
        world.publish("p", &source).await.unwrap();
        write(&world, "preset: open");
        settle().await;
        publish(&world, "a", "team", &source).await.unwrap();
        assert_eq!(world.health.overall().0, Condition::Ready);
        // The last good one is one.
        world.api.set_config(None);
        world.actors = world.restarted_with(required);
        settle().await;
        publish(&world, "b", "team", &source).await.unwrap();
        assert!(world.health.overall().1.contains("the last good policy counts"));
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
        heed(&mut world, "preset: open\ndefault: {maxVolumes: 2}").await;
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

/// A key that signs, and its public half as a policy has it.
fn key() -> (Ed25519KeyPair, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = STANDARD.encode(pair.public_key().as_ref());
    (pair, format!("ci-1:{public}"))
}

fn sign(world: &World, pair: &Ed25519KeyPair, paths: &[StorePath]) {
    for path in world.nix.vouched(paths).unwrap() {
        let signature = STANDARD.encode(pair.sign(path.fingerprint().as_bytes()));
        world.nix.sign(&path.path, vec![format!("ci-1:{signature}")]);
    }
}

/// What is known of who has built what outlives the node.
#[tokio::test(start_paused = true)]
async fn what_one_namespace_built_is_not_shown_to_another_that_knows_its_name() {
    with_world(|mut world| async move {
        let (pair, public) = key();
        let text = format!(
            "preset: strict\ndefault: {{publicKeys: [\"{public}\"]}}\nnamespaces: {{a: {{flakeRef: true}}}}"
        );
        heed(&mut world, &text).await;
        let source = flake(&world, "github:a/app");
        let private = world.nix.add_closure("app", 3).unwrap();
        let named = Source::StorePath(private.clone());
        let rule = "preset strict, storePath";
        assert_eq!(refused(&world, "early", "a", &named).await, rule);
        publish(&world, "built", "a", &source).await.unwrap();
        publish(&world, "again", "a", &named).await.unwrap();
        assert_eq!(refused(&world, "other", "b", &named).await, rule);
        // A part of it is no more public than the whole.
        let part = world.nix.closure(&private).unwrap().paths.remove(0).path;
        assert_eq!(refused(&world, "part", "b", &Source::StorePath(part)).await, rule);
        world.actors = world.restarted_with(Settings { policy: true, ..Settings::default() });
        settle().await;
        publish(&world, "later", "a", &named).await.unwrap();
        let error = publish(&world, "other", "b", &named).await.unwrap_err().to_string();
        let told = format!("volumeAttributes.storePath {private} is neither public (it has no signature of ci-1)");
        assert!(error.contains(&told), "{error}");
        // Nothing of it is left.
        assert!(!world.names("records").contains(&"other.json".to_owned()));
        sign(&world, &pair, std::slice::from_ref(&private));
        publish(&world, "other", "b", &named).await.unwrap();
        // A person is the operator.
        let person = Source::StorePath(world.nix.add_closure("unsigned", 1).unwrap());
        world.publish("p", &person).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_closures_must_be_signed_each_path_of_them_must_be() {
    with_world(|mut world| async move {
        let (pair, public) = key();
        let rules = format!("{{flakeRef: true, signed: true, publicKeys: [\"{public}\"]}}");
        heed(&mut world, &format!("preset: open\nnamespaces: {{a: {rules}}}")).await;
        let source = flake(&world, "github:a/app");
        let root = world.nix.add_closure("app", 3).unwrap();
        let rule = "namespaces.a.signed";
        assert_eq!(refused(&world, "x", "a", &source).await, rule);
        let paths: Vec<_> =
            world.nix.closure(&root).unwrap().paths.into_iter().map(|info| info.path).collect();
        for path in &paths {
            assert_eq!(refused(&world, "x", "a", &source).await, rule, "without {path}");
            sign(&world, &pair, std::slice::from_ref(path));
        }
        publish(&world, "x", "a", &source).await.unwrap();
        // Of others nobody asks it.
        let other = Source::StorePath(world.nix.add_closure("unsigned", 1).unwrap());
        publish(&world, "y", "b", &other).await.unwrap();
        // Another key: what was good is looked at again.
        let rules = rules.replace("ci-1:", "ci-2:");
        write(&world, &format!("preset: open\nnamespaces: {{a: {rules}}}"));
        settle().await;
        assert_eq!(refused(&world, "z", "a", &source).await, rule);
    })
    .await;
}

/// With every path in sight, what an expression came to may have been anybody's.
#[tokio::test(start_paused = true)]
async fn what_was_named_while_everything_was_allowed_is_nobodys_own() {
    with_world(|mut world| async move {
        heed(&mut world, "preset: open").await;
        let source = world.buildable("named");
        publish(&world, "a", "team", &source).await.unwrap();
        world.unpublish("a").await.unwrap();
        write(&world, "preset: open\ndefault: {storePath: public}");
        settle().await;
        let path = world.nix.add_closure("named", 3).unwrap();
        let named = Source::StorePath(path);
        assert_eq!(refused(&world, "b", "team", &named).await, "default.storePath");
        // Now it is its own.
        publish(&world, "a", "team", &source).await.unwrap();
        publish(&world, "b", "team", &named).await.unwrap();
        assert_eq!(refused(&world, "c", "other", &named).await, "default.storePath");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_evaluated_with_more_in_sight_than_is_allowed_by_then_does_not_count() {
    with_world(|mut world| async move {
        let text = "preset: open\ndefault: {storePath: public}";
        let (source, published) = built_while_changed_to(&mut world, text).await;
        published.unwrap();
        assert_eq!(world.nix.calls(&source).evaluated, 2);
    })
    .await;
}
