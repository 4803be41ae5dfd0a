//! From the installation's objects to rows. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode};

use super::{Row, pods};

pub(super) const CSI_DRIVER: &str = "CSIDriver";
pub(super) const NODES: &str = "node DaemonSet";
pub(super) const CACHE: &str = "cache StatefulSet";
pub(super) const REGISTERED: &str = "driver registered";

/// Fields that the driver relies on; deploy/README.md says why.
pub(super) fn csi_driver(name: &str, object: Option<&CSIDriver>) -> Row {
    let apply = "delete it, and install the driver again: most fields of one that is there can't be \
                 changed; deploy/README.md";
    let Some(CSIDriver { spec, .. }) = object else {
        return Row::failed(CSI_DRIVER, format!("there is no CSIDriver {name}"), apply);
    };
    let modes = spec.volume_lifecycle_modes.clone().unwrap_or_else(|| vec!["Persistent".into()]);
    let is = |field: Option<bool>, default: bool| field.unwrap_or(default).to_string();
    let policy = spec.fs_group_policy.clone().unwrap_or_else(|| "ReadWriteOnceWithFSType".into());
    let all = [
        ("attachRequired", is(spec.attach_required, true), "false"),
        ("podInfoOnMount", is(spec.pod_info_on_mount, false), "true"),
        ("volumeLifecycleModes", modes.join(","), "Ephemeral"),
        ("fsGroupPolicy", policy, "None"),
        ("requiresRepublish", is(spec.requires_republish, false), "false"),
        ("seLinuxMount", is(spec.se_linux_mount, false), "false"),
        ("storageCapacity", is(spec.storage_capacity, false), "false"),
    ];
    let wrong: Vec<_> = all
        .iter()
        .filter(|(_, value, wanted)| value != wanted)
        .map(|(field, value, wanted)| format!("{field} is {value}, and must be {wanted}"))
        .collect();
    if wrong.is_empty() {
        Row::ok(CSI_DRIVER, format!("{name} is as the driver needs it"))
    } else {
        Row::failed(CSI_DRIVER, format!("of {name}: {}", wrong.join("; ")), apply)
    }
}

/// `pods` are the DaemonSet's.
pub(super) fn daemon_set(namespace: &str, set: Option<&DaemonSet>, pods: &[Pod]) -> Row {
    let Some(set) = set else {
        let found = format!(
            "namespace {namespace} has no DaemonSet with the labels app.kubernetes.io/name=nix-csi, \
             app.kubernetes.io/component=node"
        );
        return Row::failed(NODES, found, "install the driver, or name its --namespace");
    };
    let status = set.status.clone().unwrap_or_default();
    let (wanted, ready) = (status.desired_number_scheduled, status.number_ready);
    if wanted == 0 {
        let way = "look at its nodeSelector and tolerations, and at `kubectl get nodes`";
        return Row::failed(NODES, "no node is to have a driver", way);
    }
    if ready >= wanted {
        return Row::ok(NODES, format!("{ready} of {wanted} nodes are ready"));
    }
    let found = format!("{ready} of {wanted} nodes are ready{}", unready(pods));
    Row::failed(NODES, found, logs(namespace))
}

/// `pods` are the StatefulSet's.
pub(super) fn stateful_set(namespace: &str, set: Option<&StatefulSet>, pods: &[Pod]) -> Row {
    let Some(set) = set else {
        return Row::skipped(CACHE, "there is no cache");
    };
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    if wanted == 0 {
        let way = format!("kubectl -n {namespace} scale statefulset {name} --replicas=1");
        return Row::failed(CACHE, "it is scaled to 0", way);
    }
    if ready >= wanted {
        return Row::ok(CACHE, format!("{ready} of {wanted} ready"));
    }
    let found = format!("{ready} of {wanted} ready{}", unready(pods));
    Row::failed(CACHE, found, logs(namespace))
}

fn unready(pods: &[Pod]) -> String {
    let why = |pod: &Pod| {
        let node = pods::node(pod).map(|node| format!(" on {node}")).unwrap_or_default();
        format!("; {}{node}: {}", pods::name(pod), pods::why_not_ready(pod))
    };
    pods.iter().filter(|pod| !pods::is_ready(pod)).map(why).collect()
}

fn logs(namespace: &str) -> String {
    format!("kubectl -n {namespace} describe pod, kubectl -n {namespace} logs POD")
}

/// Whether each node with one of `pods` lists the driver.
pub(super) fn registered(driver: &str, pods: &[Pod], listed: &[CSINode]) -> Row {
    let nodes: BTreeSet<_> = pods.iter().filter_map(pods::node).collect();
    if nodes.is_empty() {
        return Row::skipped(REGISTERED, "no node has a pod of the driver");
    }
    let lists = |node: &CSINode| node.spec.drivers.iter().any(|found| found.name == driver);
    let has = listed.iter().filter(|node| lists(node));
    let has: BTreeSet<_> = has.filter_map(|node| node.metadata.name.as_deref()).collect();
    let lacking: Vec<_> = nodes.difference(&has).copied().collect();
    if lacking.is_empty() {
        return Row::ok(REGISTERED, format!("on {} of {} nodes", nodes.len(), nodes.len()));
    }
    let found = format!(
        "not on {} of {} nodes: CSINode does not list {driver} for {}",
        lacking.len(),
        nodes.len(),
        lacking.join(", ")
    );
    let way = "is NIX_CSI_REGISTRATION_DIR the kubelet's plugins_registry, and mounted from the node? The \
               driver's log says what the kubelet answered";
    Row::failed(REGISTERED, found, way)
}

#[cfg(test)]
mod tests;
