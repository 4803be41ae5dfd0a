//! What is read of a pod, and what an API server is asked.

use std::sync::{Arc, Mutex};

use axum::http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

fn pod(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "nix", "uid": format!("uid-{name}"), "resourceVersion": "1",
            "annotations": {
                "nix.csi.store/builder-max-jobs": "4",
                "nix.csi.store.example/builder-max-jobs": "5",
                "kubectl.kubernetes.io/last-applied-configuration": "long",
            },
        },
        "spec": {
            "containers": [], "nodeName": "node-1", "hostname": name, "subdomain": "builders",
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [
                { "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "True" },
            ],
        },
    })
}

fn parsed(pod: &Value) -> Option<BuilderPod> {
    BuilderPod::of(serde_json::from_value(pod.clone()).unwrap())
}

#[test]
fn of_a_pod_is_kept_what_a_builder_needs() {
    let expected = BuilderPod {
        uid: "uid-a".to_owned(),
        namespace: "nix".to_owned(),
        name: "a".to_owned(),
        is_ready: true,
        ip: Some("10.0.0.1".parse().unwrap()),
        hostname: Some("a".to_owned()),
        subdomain: Some("builders".to_owned()),
        node: Some("node-1".to_owned()),
        annotations: BTreeMap::from([("builder-max-jobs".to_owned(), "4".to_owned())]),
    };
    assert_eq!(parsed(&pod("a")), Some(expected));
}

#[test]
fn a_pod_of_which_little_is_known_is_not_ready() {
    let bare = parsed(&json!({ "metadata": { "name": "a", "namespace": "n", "uid": "u" } }));
    let bare = bare.unwrap();
    assert!(!bare.is_ready && bare.ip.is_none() && bare.annotations.is_empty());
    assert_eq!(parsed(&json!({ "metadata": { "name": "a" } })), None);
}

#[test]
fn ready_is_who_runs_and_is_ready_and_stays() {
    let with = |pointer: &str, value: Value| {
        let mut pod = pod("a");
        *pod.pointer_mut(pointer).unwrap() = value;
        parsed(&pod).unwrap().is_ready
    };
    assert!(with("/status/conditions/0/status", json!("False")), "another condition");
    assert!(!with("/status/conditions/1/status", json!("False")));
    assert!(!with("/status/conditions/1/status", json!("Unknown")));
    assert!(!with("/status/conditions", json!([])));
    // A node that is lost leaves the condition as it was for a while.
    assert!(!with("/status/phase", json!("Failed")));
    let mut leaving = pod("a");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(!parsed(&leaving).unwrap().is_ready);
}

#[test]
fn an_address_that_is_none_is_not_there() {
    let mut odd = pod("a");
    odd["status"]["podIP"] = json!("10.0.0.1;x");
    (odd["spec"]["hostname"], odd["spec"]["subdomain"]) = (json!(""), json!(""));
    let odd = parsed(&odd).unwrap();
    assert_eq!((odd.ip, odd.hostname, odd.subdomain), (None, None, None));
}

/// An API server that answers these, one after the other, and then never again.
fn server(answers: Vec<(u16, Value)>) -> (RealBuilders, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let all = asked.clone();
    let service = service_fn(move |request: Request<Body>| {
        all.lock().unwrap().push(request.uri().to_string());
        let next = answers.lock().unwrap().next();
        async move {
            let Some((status, body)) = next else { return futures::future::pending().await };
            let status = StatusCode::from_u16(status).unwrap();
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, axum::Error>(Response::builder().status(status).body(body).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let (namespace, labels) = ("nix".into(), BUILDER_LABELS.into());
    (RealBuilders { client, namespace, labels }, asked)
}

fn list(names: &[&str], next: &str) -> (u16, Value) {
    let items: Vec<_> = names.iter().map(|name| pod(name)).collect();
    let metadata = json!({ "resourceVersion": "7", "continue": next });
    (200, json!({ "apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items }))
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "because", "reason": reason, "code": code });
    (code, status)
}

fn event(kind: &str, object: &Value) -> (u16, Value) {
    (200, json!({ "type": kind, "object": object }))
}

fn names(change: Option<BuilderChange>) -> Vec<String> {
    match change {
        Some(BuilderChange::Reset(pods)) => pods.into_iter().map(|pod| pod.name).collect(),
        other => panic!("no list: {other:?}"),
    }
}

/// What comes over the wire in one answer each: a list in pages, a watch that ends, one whose version is
/// too old, and an API server that is away.
#[tokio::test(start_paused = true)]
async fn a_watch_survives_whatever_the_api_server_does() {
    let (mut a, old) = (pod("a"), failure(410, "Expired").1);
    a["apiVersion"] = json!("v1");
    a["kind"] = json!("Pod");
    let (builders, asked) = server(vec![
        failure(503, "ServiceUnavailable"),
        list(&["a", "b"], "more"),
        list(&["c"], ""),
        event("MODIFIED", &a),
        event("DELETED", &a),
        event("ERROR", &old),
        list(&["d"], ""),
        failure(500, "InternalError"),
    ]);
    let mut changes = builders.watch_builders();
    assert!(
        matches!(changes.next().await, Some(BuilderChange::Lost(why)) if why.contains("because"))
    );
    assert_eq!(names(changes.next().await), ["a", "b", "c"], "a list is one message");
    let a = parsed(&a).unwrap();
    assert_eq!(changes.next().await, Some(BuilderChange::Applied(a.clone())));
    assert_eq!(changes.next().await, Some(BuilderChange::Deleted(a)));
    assert!(matches!(changes.next().await, Some(BuilderChange::Lost(_))));
    assert_eq!(names(changes.next().await), ["d"]);
    assert!(matches!(changes.next().await, Some(BuilderChange::Lost(_))));
    let asked = asked.lock().unwrap();
    let is_right = |uri: &String| {
        uri.starts_with("/api/v1/namespaces/nix/pods?")
            && uri.contains("labelSelector=app%3Dnix-csi-node")
    };
    assert!(asked.iter().all(is_right), "{asked:?}");
    assert!(asked[1].contains("limit=250") && !asked[1].contains("resourceVersion"), "{asked:?}");
}
