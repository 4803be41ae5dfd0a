//! The pod, and what is said of its end.

use super::*;
use crate::k8s::Verdict;

fn canary() -> Canary {
    Canary {
        namespace: "shop".to_owned(),
        name: "nix-csi-check-1".to_owned(),
        node: "n1".to_owned(),
        driver: "nix.csi.store".to_owned(),
        timeout: Duration::from_secs(120),
    }
}

fn set() -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {},
        "spec": { "selector": {}, "template": { "spec": {
            "imagePullSecrets": [{ "name": "pull" }],
            "containers": [
                { "name": "node-driver-registrar", "image": "registrar" },
                { "name": "nix-csi", "image": "driver:1", "securityContext": { "privileged": true } },
            ],
        } } },
    }))
    .unwrap()
}

#[test]
fn it_runs_the_drivers_image_on_its_node_with_no_powers_and_ends_by_itself() {
    let pod = serde_json::to_value(canary().pod(&set()).unwrap()).unwrap();
    let spec = &pod["spec"];
    assert_eq!(pod["metadata"]["labels"][LABEL.0], LABEL.1);
    assert_eq!(spec["nodeName"], "n1");
    assert_eq!(spec["activeDeadlineSeconds"], 150);
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(spec["imagePullSecrets"][0]["name"], "pull");
    assert_eq!(spec["automountServiceAccountToken"], false);
    let container = &spec["containers"][0];
    assert_eq!(container["image"], "driver:1");
    assert_eq!(container["args"], json!(["canary", "/canary", "nix-csi-check-1"]));
    assert_eq!(container["securityContext"]["privileged"], Value::Null);
    assert_eq!(container["securityContext"]["runAsNonRoot"], true);
    let csi = &spec["volumes"][0]["csi"];
    assert_eq!((&csi["driver"], &csi["readOnly"]), (&json!("nix.csi.store"), &json!(true)));
    let expression = csi["volumeAttributes"]["nixExpr"].as_str().unwrap();
    assert!(expression.contains("\"nix-csi-check-1\"") && expression.contains("builtin:buildenv"));
    let mut none = set();
    none.spec.as_mut().unwrap().template.spec = None;
    assert!(canary().pod(&none).is_none());
}

fn event(kind: &str, reason: &str, message: &str, at: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": {}, "involvedObject": {},
        "type": kind, "reason": reason, "message": message, "lastTimestamp": at,
    }))
    .unwrap()
}

fn pod(phase: &str) -> Pod {
    serde_json::from_value(json!({ "metadata": {}, "status": { "phase": phase,
        "containerStatuses": [{ "name": "canary", "ready": false, "restartCount": 0, "image": "",
            "imageID": "", "state": { "terminated": { "exitCode": 1, "reason": "Error",
                "message": "nix-csi: can't list /canary/store: Permission denied\n" } } }] } }))
    .unwrap()
}

#[test]
fn a_failure_says_the_last_failed_mount_else_another_warning_else_the_container() {
    let events = [
        event("Normal", "Scheduled", "to n1", "2026-01-01T00:00:09Z"),
        event("Warning", "FailedMount", "not registered yet", "2026-01-01T00:00:01Z"),
        event("Warning", "FailedMount", "the policy refuses", "2026-01-01T00:00:05Z"),
        event("Warning", "StoreFailed", "also", "2026-01-01T00:00:08Z"),
    ];
    let found = |events: &[Event]| canary().failed(&pod("Pending"), events);
    assert_eq!(found(&events).found, "FailedMount: the policy refuses");
    assert_eq!(found(&events[3..]).found, "StoreFailed: also");
    assert_eq!(
        found(&events[..1]).found,
        "canary ended with Error, exit code 1: nix-csi: can't list /canary/store: Permission denied"
    );
    let row = found(&events);
    assert_eq!((row.verdict, &*row.what), (Verdict::Failed, "canary on n1"));
    assert!(row.way_out.unwrap().contains("policy explain --namespace shop"));
}

#[test]
fn it_has_ended_when_its_phase_says_so() {
    let ended = |phase: &str| canary().ended(&pod(phase), &[]).map(|row| row.verdict);
    assert_eq!(ended("Succeeded"), Some(Verdict::Ok));
    assert_eq!(ended("Failed"), Some(Verdict::Failed));
    assert_eq!(ended("Pending"), None);
    assert_eq!(ended("Running"), None);
}

#[test]
fn what_a_killed_check_left_is_told_from_what_another_one_runs() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let left = |created: &str, deadline: i64| {
        let pod = json!({ "metadata": { "creationTimestamp": created },
            "spec": { "containers": [], "activeDeadlineSeconds": deadline } });
        is_left(&serde_json::from_value(pod).unwrap(), now)
    };
    assert!(!left("2026-01-01T00:59:00Z", 150));
    assert!(!left("2026-01-01T00:51:00Z", 150));
    assert!(left("2026-01-01T00:49:00Z", 150));
    assert!(!left("2026-01-01T00:49:00Z", 3600), "another check waits that long");
}
