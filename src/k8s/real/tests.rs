//! Calls about Events, against a server that keeps what it was asked.

use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::Value;
use tower::service_fn;

use super::*;
use crate::k8s::CALL_LIMIT;
use crate::k8s::Kind;
use crate::model::PodInfo;

struct Asked {
    method: Method,
    path: String,
    content_type: String,
    body: Value,
}

/// An API server that answers everything with this status, and what it was asked.
fn server(status: u16) -> (RealApi, Arc<Mutex<Vec<Asked>>>) {
    answering(status, &[])
}

fn answering(status: u16, causes: &'static [&str]) -> (RealApi, Arc<Mutex<Vec<Asked>>>) {
    let all = Arc::<Mutex<Vec<Asked>>>::default();
    let asked = all.clone();
    let service = service_fn(move |request: Request<Body>| {
        let all = all.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await?;
            let content_type = head.headers.get("content-type");
            let content_type = content_type.map(|v| v.to_str().unwrap().to_owned());
            let content_type = content_type.unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let path = head.uri.path().to_owned();
            let answer = answer(status, causes, &body);
            all.lock().unwrap().push(Asked { method: head.method, path, content_type, body });
            Ok::<_, axum::Error>(answer)
        }
    });
    (api(Client::new(service, "default")), asked)
}

fn answer(status: u16, causes: &[&str], body: &Value) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap();
    let text = if status.is_success() {
        // A patch is no whole Event.
        let event = json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {},
            "eventTime": null });
        if body.get("series").is_some() { event.to_string() } else { body.to_string() }
    } else {
        let reason = if status == StatusCode::CONFLICT { "Conflict" } else { "Because" };
        let causes: Vec<_> = causes.iter().map(|reason| json!({ "reason": reason })).collect();
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "because", "reason": reason, "code": status.as_u16(),
            "details": { "causes": causes } })
        .to_string()
    };
    Response::builder().status(status).body(Body::from(text.into_bytes())).unwrap()
}

fn api(client: Client) -> RealApi {
    RealApi { client, node: "node-1".into(), driver: "nix.csi.store".into() }
}

fn event() -> Event {
    let pod = PodInfo {
        name: "web-0".into(),
        namespace: "shop".into(),
        uid: "uid-1".into(),
        ..PodInfo::default()
    };
    let (reason, action) = ("StoreMounted", "Mounting");
    let at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
    Event { pod, kind: Kind::Normal, reason, action, note: "a note".into(), at }
}

fn name() -> EventName {
    EventName { namespace: "shop".into(), name: "web-0.1".into() }
}

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    // The API's MicroTime: six digits, no more and no less.
    text.parse::<jiff::Timestamp>().is_ok() && text.len() == "2026-01-01T00:00:00.000000Z".len()
}

#[tokio::test]
async fn an_event_is_created_in_its_pods_namespace() {
    let (api, asked) = server(201);
    let posted = api.post_event(event()).await.unwrap();
    let [asked] = &asked.lock().unwrap()[..] else { panic!("one call") };
    assert_eq!((&asked.method, &*asked.content_type), (&Method::POST, "application/json"));
    assert_eq!(asked.path, "/apis/events.k8s.io/v1/namespaces/shop/events");
    let body = &asked.body;
    assert_eq!(posted.namespace, "shop");
    assert_eq!(body["metadata"]["name"], *posted.name);
    assert!(posted.name.starts_with("web-0."), "{}", posted.name);
    assert_eq!(body["metadata"]["namespace"], "shop");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web-0", "namespace": "shop",
        "uid": "uid-1" });
    assert_eq!(body["regarding"], pod);
    for (key, value) in [
        ("type", "Normal"),
        ("reason", "StoreMounted"),
        ("action", "Mounting"),
        ("note", "a note"),
        ("reportingController", "nix.csi.store"),
        ("reportingInstance", "node-1"),
    ] {
        assert_eq!(body[key], value, "{key}");
    }
    assert_eq!(body["eventTime"], "2026-01-02T03:04:05.678901Z", "when it happened");
    // The API refuses a series of one, and the deprecated fields beside the new ones.
    for absent in ["series", "deprecatedCount", "deprecatedFirstTimestamp"] {
        assert!(body.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn a_repetition_patches_the_series_alone() {
    let (api, asked) = server(200);
    api.repeat_event(name(), 7).await.unwrap();
    let [asked] = &asked.lock().unwrap()[..] else { panic!("one call") };
    assert_eq!(asked.method, Method::PATCH);
    assert_eq!(asked.content_type, "application/merge-patch+json");
    assert_eq!(asked.path, "/apis/events.k8s.io/v1/namespaces/shop/events/web-0.1");
    let observed = &asked.body["series"]["lastObservedTime"];
    assert!(is_time(observed), "{observed}");
    assert_eq!(asked.body, json!({ "series": { "count": 7, "lastObservedTime": observed } }));
}

#[tokio::test]
async fn a_status_says_what_can_be_done() {
    for (status, kind) in [
        (400, "invalid"),
        (401, "forbidden"),
        (403, "forbidden"),
        (404, "gone"),
        (408, "down"),
        (409, "conflict"),
        (410, "gone"),
        (422, "invalid"),
        (429, "down"),
        (500, "down"),
        (503, "down"),
    ] {
        let (api, _) = server(status);
        let errors = [
            api.post_event(event()).await.unwrap_err(),
            api.repeat_event(name(), 2).await.unwrap_err(),
        ];
        for (error, what) in errors.iter().zip(["post an Event", "update an Event"]) {
            assert_eq!(error.kind(), kind, "{status}: {error}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("can't {what}: ")), "{text}");
            assert!(text.contains("because"), "{text}");
        }
    }
}

/// As a real one (1.35) says it: 403 with a cause.
#[tokio::test]
async fn a_namespace_that_is_being_deleted_is_gone() {
    let (api, _) = answering(403, &["NamespaceTerminating"]);
    assert_eq!(api.post_event(event()).await.unwrap_err().kind(), "gone");
}

#[tokio::test]
async fn a_server_that_nobody_reaches_is_down() {
    let service = service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let error = api(Client::new(service, "default")).post_event(event()).await.unwrap_err();
    assert_eq!(error.kind(), "down");
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_down_after_the_limit() {
    let service = service_fn(|_: Request<Body>| {
        futures::future::pending::<Result<Response<Body>, std::io::Error>>()
    });
    let api = api(Client::new(service, "default"));
    let began = tokio::time::Instant::now();
    let error = api.post_event(event()).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), ("down", CALL_LIMIT.as_secs()));
    assert!(error.to_string().contains("no answer within 10s"), "{error}");
    assert_eq!(api.repeat_event(name(), 2).await.unwrap_err().kind(), "down");
}

/// An API server that answers each call as `answer` says, by method and path.
fn scripted(answer: fn(&Method, &str) -> (u16, Value)) -> (RealApi, Arc<Mutex<Vec<Asked>>>) {
    let all = Arc::<Mutex<Vec<Asked>>>::default();
    let asked = all.clone();
    let service = service_fn(move |request: Request<Body>| {
        let all = all.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await?;
            let path = head.uri.path().to_owned();
            let (status, said) = answer(&head.method, &path);
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let content_type = String::new();
            all.lock().unwrap().push(Asked { method: head.method, path, content_type, body });
            let said = Body::from(said.to_string().into_bytes());
            Ok::<_, axum::Error>(Response::builder().status(status).body(said).unwrap())
        }
    });
    (api(Client::new(service, "default")), asked)
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "because", "reason": reason, "code": code });
    (code, status)
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_posted() {
    let (api, _) = scripted(|_, _| refusal(409, "AlreadyExists"));
    let first = api.post_event(event()).await.unwrap();
    assert_eq!(api.post_event(event()).await.unwrap(), first, "it keeps its name");
}

fn node(_: &Method, _: &str) -> (u16, Value) {
    let taint = |key: &str| json!({ "key": key, "effect": "NoSchedule" });
    let node = json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "node-1", "resourceVersion": "7" },
        "spec": { "taints": [taint("a"), taint("startup"), taint("b")] } });
    (200, node)
}

#[tokio::test]
async fn a_taint_is_removed_from_what_was_read_and_no_other_is_lost() {
    let (api, asked) = scripted(node);
    assert!(api.remove_taint("startup").await.unwrap());
    let [read, patch] = &asked.lock().unwrap()[..] else { panic!("two calls") };
    assert_eq!((&read.method, &*read.path), (&Method::GET, "/api/v1/nodes/node-1"));
    assert_eq!((&patch.method, &*patch.path), (&Method::PATCH, "/api/v1/nodes/node-1"));
    assert_eq!(patch.body["metadata"]["resourceVersion"], "7");
    let keys: Vec<_> =
        patch.body["spec"]["taints"].as_array().unwrap().iter().map(|t| &t["key"]).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[tokio::test]
async fn a_node_without_the_taint_is_left_alone() {
    let (api, asked) = scripted(node);
    assert!(!api.remove_taint("other").await.unwrap());
    assert_eq!(asked.lock().unwrap().len(), 1, "nothing is written");
    let (api, _) = scripted(|method, path| match method {
        &Method::PATCH => refusal(409, "Conflict"),
        method => node(method, path),
    });
    assert_eq!(api.remove_taint("startup").await.unwrap_err().kind(), "conflict");
}

#[tokio::test]
async fn the_kubelets_list_of_drivers_tells_whether_ours_is_known() {
    fn csi_node(_: &Method, _: &str) -> (u16, Value) {
        let driver = json!({ "name": "nix.csi.store", "nodeID": "node-1", "topologyKeys": null });
        let node = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": { "name": "node-1" }, "spec": { "drivers": [driver] } });
        (200, node)
    }
    let (api, asked) = scripted(csi_node);
    assert!(api.is_driver_listed().await.unwrap());
    assert_eq!(asked.lock().unwrap()[0].path, "/apis/storage.k8s.io/v1/csinodes/node-1");
    let other = RealApi { driver: "other".into(), ..api };
    assert!(!other.is_driver_listed().await.unwrap());
    let (api, _) = scripted(|_, _| refusal(404, "NotFound"));
    assert!(!api.is_driver_listed().await.unwrap());
}
