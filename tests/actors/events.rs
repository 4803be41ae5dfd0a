//! Events on pods: what is said, when, and that nobody waits for it.

use std::time::Duration;

use nix_csi::actors::volume::Request;
use nix_csi::k8s::fake::Fault;
use nix_csi::k8s::{ApiError, Event};
use nix_csi::model::{PodInfo, Source, TargetPath};
use nix_csi::nix::{RealiseError, Step};
use tokio::time::sleep;

use crate::world::{World, id, request, with_world};

/// As the kubelet asks for the volume `name` of a pod.
fn of_pod(pod: &str, name: &str, source: &Source) -> Request {
    let mut request = request("unused", source);
    let target = format!("/k/pods/{pod}/volumes/kubernetes.io~csi/{name}/mount");
    request.target = TargetPath::parse("", &target).unwrap();
    let (uid, name, namespace) = (pod.to_owned(), pod.to_owned(), "ns".to_owned());
    request.spec.pod = Some(PodInfo { uid, name, namespace, ..PodInfo::default() });
    request
}

async fn publish(world: &World, pod: &str, name: &str, source: &Source) -> Result<(), String> {
    let asked = of_pod(pod, name, source);
    let published = world.actors.directory.publish(&id(&format!("{pod}-{name}")), asked).await;
    published.map_err(|error| error.to_string())
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn notes(world: &World, reason: &str) -> Vec<String> {
    let of_reason = |(event, _): &(Event, i32)| event.reason == reason;
    world.api.posted().into_iter().filter(of_reason).map(|(event, _)| event.note).collect()
}

fn refused() -> RealiseError {
    let (step, cause, hint) = (Step::Evaluate, "no such attribute".to_owned(), None);
    RealiseError::Refused { step, cause, hint }
}

#[tokio::test(start_paused = true)]
async fn a_slow_build_is_spoken_of_and_a_warm_mount_is_one_event() {
    with_world(|world| async move {
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let watch = async {
            seconds(70).await;
            let said = notes(&world, "StoreBuilding");
            assert_eq!(said.len(), 3, "at 3, 18 and 48 s: {said:?}");
            assert!(said.iter().all(|note| note.starts_with("volume nix: ")), "{said:?}");
            assert!(notes(&world, "StoreMounted").is_empty());
            gate.release();
        };
        let (published, ()) = tokio::join!(publish(&world, "a", "nix", &source), watch);
        published.unwrap();
        seconds(5).await;
        let said = notes(&world, "StoreMounted");
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("of nixExpr: 3 store paths"), "{said:?}");
        assert!(said[0].ends_with("built, in 70 s"), "{said:?}");

        publish(&world, "b", "nix", &source).await.unwrap();
        seconds(60).await;
        let said = notes(&world, "StoreMounted");
        assert_eq!(said.len(), 2);
        assert!(said[1].contains("was in the node's store"), "{said:?}");
        assert_eq!(notes(&world, "StoreBuilding").len(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_volumes_of_a_pod_are_one_word() {
    with_world(|world| async move {
        let (one, two) = (world.buildable("one"), world.buildable("two"));
        let gates = [world.nix.hold(one.clone()), world.nix.hold(two.clone())];
        let watch = async {
            seconds(10).await;
            let said = notes(&world, "StoreBuilding");
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("volume one: ") && said[0].contains("; volume two: "));
            for gate in gates {
                gate.release();
            }
        };
        let both = futures::future::join(
            publish(&world, "a", "one", &one),
            publish(&world, "a", "two", &two),
        );
        let ((first, second), ()) = tokio::join!(both, watch);
        first.and(second).unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_repeated_is_one_event_with_a_count() {
    with_world(|world| async move {
        let source = world.buildable("bad");
        world.nix.fail(source.clone(), refused);
        for _ in 0..12 {
            publish(&world, "a", "nix", &source).await.unwrap_err();
            seconds(20).await;
        }
        publish(&world, "b", "nix", &source).await.unwrap_err();
        seconds(20).await;
        let failed: Vec<_> =
            world.api.posted().into_iter().filter(|(e, _)| e.reason == "StoreFailed").collect();
        assert_eq!(failed.len(), 2, "one for each pod: {failed:?}");
        assert_eq!((failed[0].1, failed[1].1), (12, 1));
        assert!(failed[0].0.note.starts_with("volume nix: evaluate failed"), "{failed:?}");
        assert!(!failed[0].0.note.contains("not tried again"), "{failed:?}");
    })
    .await;
}

/// Neither an API server that is down nor one that hangs holds up a mount.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_gets_the_events_later() {
    with_world(|world| async move {
        let down = ApiError::Down { what: "post", reason: "test".to_owned() };
        world.api.set_fault(Some(Fault::Fails(down)));
        for n in 0..20 {
            let source = world.buildable(&format!("p{n}"));
            publish(&world, &format!("pod-{n}"), "nix", &source).await.unwrap();
        }
        seconds(60).await;
        assert!(world.api.posted().is_empty());
        assert!(world.api.calls() < 20, "it is not hammered: {}", world.api.calls());
        world.api.set_fault(None);
        seconds(60).await;
        assert_eq!(notes(&world, "StoreMounted").len(), 20);

        world.api.set_fault(Some(Fault::Hangs));
        for n in 20..40 {
            let source = world.buildable(&format!("p{n}"));
            publish(&world, &format!("pod-{n}"), "nix", &source).await.unwrap();
        }
        assert_eq!(world.mounts.mounted(), 40);
    })
    .await;
}

/// After a restart the kubelet publishes all running pods again, and nothing has happened to them.
#[tokio::test(start_paused = true)]
async fn a_restarted_node_says_nothing_of_what_is_mounted() {
    with_world(|mut world| async move {
        let source = world.buildable("steady");
        publish(&world, "a", "nix", &source).await.unwrap();
        publish(&world, "a", "nix", &source).await.unwrap();
        seconds(5).await;
        assert_eq!(world.api.posted().len(), 1);
        world.actors = world.restarted();
        publish(&world, "a", "nix", &source).await.unwrap();
        seconds(60).await;
        assert_eq!(world.api.posted().len(), 1);
    })
    .await;
}

/// Without a word of the kubelet's there is nobody to tell, and nothing is told of what was cancelled.
#[tokio::test(start_paused = true)]
async fn nothing_is_said_of_nobodys_volumes_and_of_cancelled_ones() {
    with_world(|world| async move {
        let source = world.buildable("one");
        world.publish("plain", &source).await.unwrap();
        let slow = world.buildable("slow");
        let _gate = world.nix.hold(slow.clone());
        let cancel = async {
            seconds(1).await;
            let target = of_pod("a", "nix", &slow).target;
            world.actors.directory.unpublish(&id("a-nix"), target).await.unwrap();
        };
        let (published, ()) = tokio::join!(publish(&world, "a", "nix", &slow), cancel);
        published.unwrap_err();
        seconds(300).await;
        assert!(world.api.posted().is_empty(), "{:?}", world.api.posted());
    })
    .await;
}
