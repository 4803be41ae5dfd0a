//! A whole check against an API server of a few answers, and what is left of its canaries.

use std::sync::Arc;

use axum::http::{Method, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::k8s::CanaryNodes;
use crate::k8s::Verdict;
use crate::lock::lock;

#[derive(Default)]
struct Server {
    /// Phase of canaries.
    phase: &'static str,
    metrics: &'static str,
    /// What is answered with 403.
    forbidden: &'static str,
    canaries: Mutex<BTreeMap<String, Value>>,
    asked: Mutex<Vec<String>>,
}

impl Server {
    fn answer(&self, method: &Method, path: &str, body: &Value) -> (u16, String) {
        lock(&self.asked).push(format!("{method} {path}"));
        if !self.forbidden.is_empty() && path.contains(self.forbidden) {
            return (403, failure(403, "you may not"));
        }
        let canaries = "/api/v1/namespaces/shop/pods";
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut there = lock(&self.canaries);
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            there.insert(name, body.clone());
            return (201, body.to_string());
        }
        if *method == Method::DELETE {
            return match there.remove(&name) {
                Some(pod) => (200, pod.to_string()),
                None => (404, failure(404, "gone")),
            };
        }
        let value = match path {
            _ if path.ends_with("/proxy/metrics") => return (200, self.metrics.to_owned()),
            _ if path == canaries => {
                json!({ "metadata": {}, "items": there.values().collect::<Vec<_>>() })
            }
            _ if path.starts_with(canaries) => {
                let mut pod = there[&name].clone();
                pod["status"] = json!({ "phase": self.phase });
                pod
            }
            _ if path.ends_with("/events") => json!({ "metadata": {}, "items": [{
                "metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "FailedMount",
                "message": "the policy refuses this" }] }),
            _ if path.ends_with("/daemonsets") => json!({ "metadata": {}, "items": [{
                "metadata": { "name": "nix-csi-node" },
                "spec": {
                    "selector": { "matchLabels": { "a": "b" } },
                    "template": { "spec": { "containers": [{ "name": "nix-csi", "image": "i" }] } },
                },
                "status": { "desiredNumberScheduled": 1, "numberReady": 1,
                    "currentNumberScheduled": 1, "numberMisscheduled": 0 } }] }),
            _ if path.ends_with("/namespaces/nix-csi/pods") => json!({ "metadata": {}, "items": [{
                "metadata": { "name": "node-1" },
                "spec": { "nodeName": "n1", "containers": [{ "name": "nix-csi",
                    "ports": [{ "name": "metrics", "containerPort": 1234 }] }] },
                "status": { "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": "True" }] } }] }),
            _ if path.ends_with("/csinodes") => json!({ "metadata": {}, "items": [{
                "metadata": { "name": "n1" },
                "spec": { "drivers": [{ "name": "nix.csi.store", "nodeID": "n1" }] } }] }),
            _ if path.contains("/csidrivers/") => json!({ "metadata": { "name": "nix.csi.store" },
                "spec": { "attachRequired": false, "podInfoOnMount": true,
                    "volumeLifecycleModes": ["Ephemeral"], "fsGroupPolicy": "None" } }),
            _ => json!({ "metadata": {}, "items": [] }),
        };
        (200, value.to_string())
    }
}

fn failure(code: u16, message: &str) -> String {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Because", "code": code })
    .to_string()
}

fn check(server: Server) -> (ClusterCheck, Arc<Server>) {
    let server = Arc::new(server);
    let asked = server.clone();
    let service = service_fn(move |request: axum::http::Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await?;
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, text) = server.answer(&head.method, head.uri.path(), &body);
            let answer = Response::builder().status(StatusCode::from_u16(code).unwrap());
            Ok::<_, axum::Error>(answer.body(Body::from(text.into_bytes())).unwrap())
        }
    });
    let options = CheckOptions {
        namespace: "nix-csi".to_owned(),
        driver: "nix.csi.store".to_owned(),
        canary_namespace: "shop".to_owned(),
        nodes: CanaryNodes::One,
        timeout: Duration::from_secs(20),
    };
    (ClusterCheck::new(Client::new(service, "default"), options), asked)
}

fn row<'a>(rows: &'a [Row], what: &str) -> &'a Row {
    rows.iter().find(|row| row.what == what).unwrap_or_else(|| panic!("{what}: {rows:?}"))
}

#[tokio::test(start_paused = true)]
async fn a_whole_installation_is_green_and_its_canary_goes() {
    let (check, server) = check(Server { phase: "Succeeded", ..Server::default() });
    let old = json!({ "metadata": { "name": "old", "creationTimestamp": "2020-01-01T00:00:00Z" },
        "spec": { "containers": [] } });
    lock(&server.canaries).insert("old".to_owned(), old);
    let rows = check.run().await;
    assert!(rows.iter().all(|row| row.verdict != Verdict::Failed), "{rows:?}");
    assert_eq!(row(&rows, "canary on n1").verdict, Verdict::Ok);
    assert!(lock(&server.canaries).is_empty(), "its own and the one of a killed check");
    let asked = lock(&server.asked).clone();
    let metrics = "GET /api/v1/namespaces/nix-csi/pods/node-1:1234/proxy/metrics";
    assert!(asked.iter().any(|asked| asked == metrics), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_never_runs_is_red_with_its_event_and_goes() {
    let (check, server) = check(Server { phase: "Pending", ..Server::default() });
    let rows = check.run().await;
    let row = row(&rows, "canary on n1");
    assert_eq!(row.verdict, Verdict::Failed);
    assert_eq!(row.found, "it did not end within 20s: FailedMount: the policy refuses this");
    assert!(lock(&server.canaries).is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_removes_the_canary() {
    let (check, server) = check(Server { phase: "Running", ..Server::default() });
    assert!(tokio::time::timeout(Duration::from_secs(5), check.run()).await.is_err());
    assert_eq!(lock(&server.canaries).len(), 1, "it is still there");
    check.clean().await.unwrap();
    assert!(lock(&server.canaries).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_a_failure_of_its_row_alone() {
    let (check, _) =
        check(Server { phase: "Succeeded", forbidden: "csinodes", ..Server::default() });
    let rows = check.run().await;
    let registered = row(&rows, "driver registered");
    assert!(registered.verdict == Verdict::Failed && registered.found.contains("you may not"));
    assert!(registered.way_out.as_ref().unwrap().contains("docs/check.md"));
    assert_eq!(rows.iter().filter(|row| row.verdict == Verdict::Failed).count(), 1, "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_refuses_the_key_is_red_although_the_canary_runs() {
    let metrics =
        "nixcsi_cache_last_upload{end=\"ok\"} 0\nnixcsi_cache_last_upload{end=\"key-refused\"} 1\n";
    let (check, _) = check(Server { phase: "Succeeded", metrics, ..Server::default() });
    let rows = check.run().await;
    assert_eq!(row(&rows, "canary on n1").verdict, Verdict::Ok);
    let cache = row(&rows, "cache reachable");
    assert_eq!(cache.verdict, Verdict::Failed);
    assert_eq!(cache.found, "n1: the cache refused the node's ssh key (key-refused)");
}
