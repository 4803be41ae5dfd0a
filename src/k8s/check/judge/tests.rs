//! Objects as an API server gives them, and what is said of them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::k8s::Verdict;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn deployed() -> Value {
    json!({
        "metadata": { "name": "nix.csi.store" },
        "spec": {
            "attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": ["Ephemeral"],
            "fsGroupPolicy": "None", "requiresRepublish": false, "seLinuxMount": false,
            "storageCapacity": false,
        },
    })
}

#[test]
fn each_field_that_is_not_as_needed_is_named_with_both_values() {
    let judged = |value: Value| csi_driver("nix.csi.store", Some(&object(value)));
    assert_eq!(judged(deployed()).verdict, Verdict::Ok);
    for (field, value, said) in [
        ("attachRequired", json!(true), "attachRequired is true, and must be false"),
        ("attachRequired", Value::Null, "attachRequired is true, and must be false"),
        ("podInfoOnMount", Value::Null, "podInfoOnMount is false, and must be true"),
        (
            "volumeLifecycleModes",
            json!(["Persistent", "Ephemeral"]),
            "volumeLifecycleModes is Persistent,Ephemeral, and must be Ephemeral",
        ),
        ("fsGroupPolicy", json!("File"), "fsGroupPolicy is File, and must be None"),
        ("requiresRepublish", json!(true), "requiresRepublish is true, and must be false"),
        ("seLinuxMount", json!(true), "seLinuxMount is true, and must be false"),
        ("storageCapacity", json!(true), "storageCapacity is true, and must be false"),
    ] {
        let mut changed = deployed();
        changed["spec"][field] = value;
        let row = judged(changed);
        assert_eq!(row.verdict, Verdict::Failed, "{field}");
        assert_eq!(row.found, format!("of nix.csi.store: {said}"));
    }
    let none = csi_driver("nix.csi.store", None);
    assert!(none.verdict == Verdict::Failed && none.found.contains("there is no CSIDriver"));
}

fn pod(name: &str, node: &str, status: &Value) -> Pod {
    object(json!({
        "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [] },
        "status": status,
    }))
}

fn ready(name: &str, node: &str) -> Pod {
    let status =
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    pod(name, node, &status)
}

fn crashing() -> Pod {
    pod(
        "nix-csi-node-b",
        "b",
        &json!({
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "False", "message": "containers are not" }],
            "containerStatuses": [{
                "name": "nix-csi", "ready": false, "restartCount": 3, "image": "", "imageID": "",
                "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
                "lastState": { "terminated": { "reason": "Error", "exitCode": 1 } },
            }],
        }),
    )
}

fn daemons(wanted: i32, ready: i32) -> DaemonSet {
    object(json!({
        "metadata": { "name": "nix-csi-node" },
        "status": {
            "desiredNumberScheduled": wanted, "numberReady": ready,
            "currentNumberScheduled": wanted, "numberMisscheduled": 0,
        },
    }))
}

#[test]
fn a_node_that_is_not_ready_is_named_with_why_it_waits_and_how_it_ended_last() {
    let row = daemon_set("ns", Some(&daemons(2, 1)), &[ready("nix-csi-node-a", "a"), crashing()]);
    assert_eq!(row.verdict, Verdict::Failed);
    assert_eq!(
        row.found,
        "1 of 2 nodes are ready; nix-csi-node-b on b: nix-csi waits: CrashLoopBackOff: back-off 40s, \
         before it ended with Error, exit code 1"
    );
    assert!(row.way_out.unwrap().contains("kubectl -n ns describe pod"));
    let row = daemon_set("ns", Some(&daemons(1, 1)), &[ready("nix-csi-node-a", "a")]);
    assert_eq!((row.verdict, &*row.found), (Verdict::Ok, "1 of 1 nodes are ready"));
}

#[test]
fn no_daemon_set_and_one_for_no_node_are_failures() {
    let none = daemon_set("ns", None, &[]);
    assert!(
        none.verdict == Verdict::Failed && none.found.contains("namespace ns has no DaemonSet")
    );
    let idle = daemon_set("ns", Some(&daemons(0, 0)), &[]);
    assert!(idle.verdict == Verdict::Failed && idle.found.contains("no node"), "{idle:?}");
}

#[test]
fn why_a_pod_is_not_ready_is_said_from_what_there_is() {
    for (status, why) in [
        (
            json!({ "phase": "Pending", "conditions": [
                { "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }] }),
            "0/3 nodes are available",
        ),
        (
            json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }] }),
            "its phase is Pending",
        ),
        (json!({ "phase": "Failed", "message": "Pod was evicted" }), "Pod was evicted"),
        (
            json!({ "phase": "Running", "containerStatuses": [{ "name": "c", "ready": false,
                "restartCount": 0, "image": "", "imageID": "", "state": { "running": {} } }] }),
            "c runs and is not ready",
        ),
    ] {
        assert_eq!(pods::why_not_ready(&pod("p", "n", &status)), why);
    }
}

#[test]
fn a_cache_that_is_none_is_skipped_and_one_that_is_not_ready_fails() {
    let set = |wanted: i32, ready: i32| -> StatefulSet {
        object(json!({
            "metadata": { "name": "nix-cache" },
            "spec": { "replicas": wanted, "selector": {}, "serviceName": "x",
                "template": { "metadata": {} } },
            "status": { "replicas": wanted, "readyReplicas": ready },
        }))
    };
    let judged = |set: Option<StatefulSet>| stateful_set("ns", set.as_ref(), &[crashing()]);
    assert_eq!(judged(None).verdict, Verdict::Skipped);
    assert_eq!(judged(Some(set(1, 1))).verdict, Verdict::Ok);
    let row = judged(Some(set(1, 0)));
    assert_eq!(row.verdict, Verdict::Failed);
    assert!(
        row.found.contains("0 of 1 ready") && row.found.contains("CrashLoopBackOff"),
        "{row:?}"
    );
    let row = judged(Some(set(0, 0)));
    assert_eq!((row.verdict, &*row.found), (Verdict::Failed, "it is scaled to 0"));
    assert!(row.way_out.unwrap().contains("scale statefulset nix-cache"));
}

#[test]
fn nodes_that_do_not_list_the_driver_are_named() {
    let node = |name: &str, drivers: &[&str]| -> CSINode {
        let drivers = drivers.iter().map(|d| json!({ "name": d, "nodeID": name }));
        let drivers = drivers.collect::<Vec<_>>();
        object(json!({ "metadata": { "name": name }, "spec": { "drivers": drivers } }))
    };
    let pods = [ready("p-a", "a"), ready("p-b", "b"), ready("p-c", "c")];
    let (ours, other) = ("nix.csi.store", "other.csi");
    let all = [node("a", &[other, ours]), node("b", &[ours]), node("c", &[ours])];
    assert_eq!(registered(ours, &pods, &all).verdict, Verdict::Ok);
    // One lists another driver, one has no object at all.
    let row = registered(ours, &pods, &[node("a", &[ours]), node("b", &[other])]);
    assert_eq!(row.verdict, Verdict::Failed);
    assert_eq!(row.found, "not on 2 of 3 nodes: CSINode does not list nix.csi.store for b, c");
    assert_eq!(registered(ours, &[], &all).verdict, Verdict::Skipped);
}
