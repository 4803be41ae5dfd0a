//! What a pod's object says: where it is, and why it is not ready. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::CanaryNodes;

const PORT: i32 = 9809;

pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("?")
}

pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && condition(pod, "Ready").is_none()
}

/// `None`: the condition holds. Else why not, as far as it says.
fn condition(pod: &Pod, kind: &str) -> Option<String> {
    let mut all = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let Some(found) = all.find(|condition| condition.type_ == kind) else {
        return Some(String::new());
    };
    (found.status != "True").then(|| found.message.clone().unwrap_or_default())
}

/// Waiting reason, last termination, or what its conditions say.
pub(super) fn why_not_ready(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "it is being deleted".to_owned();
    }
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut said: Vec<_> = statuses.filter(|status| !status.ready).map(container).collect();
    if said.is_empty() {
        let why = ["PodScheduled", "Ready"].into_iter().find_map(|kind| condition(pod, kind));
        said.extend(why.filter(|why| !why.is_empty()));
    }
    let status = pod.status.as_ref();
    said.extend(status.and_then(|status| status.message.clone()));
    if said.is_empty() {
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
        return format!("its phase is {phase}");
    }
    said.join("; ")
}

/// `nix-csi waits: CrashLoopBackOff: …, ended last with Error, exit code 1: …`.
pub(super) fn container(status: &ContainerStatus) -> String {
    let state = status.state.as_ref();
    let now = if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("without a reason");
        format!("waits: {}", with(reason, waiting.message.as_deref()))
    } else if let Some(ended) = state.and_then(ended) {
        ended
    } else {
        "runs and is not ready".to_owned()
    };
    let last = status.last_state.as_ref().and_then(ended);
    let last = last.map(|last| format!(", before it {last}")).unwrap_or_default();
    format!("{} {now}{last}", status.name)
}

fn ended(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("no reason");
    let what = format!("ended with {reason}, exit code {}", ended.exit_code);
    Some(with(&what, ended.message.as_deref()))
}

fn with(what: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{what}: {message}"),
        None => what.to_owned(),
    }
}

/// Of its metrics.
pub(super) fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut named = ports.filter(|port| port.name.as_deref() == Some("metrics"));
    named.next().map_or(PORT, |port| port.container_port)
}

/// Nodes for canaries.
pub(super) fn chosen(nodes: &CanaryNodes, drivers: &[Pod]) -> Vec<String> {
    let with = |ready: bool| {
        let pods = drivers.iter().filter(move |pod| !ready || is_ready(pod));
        pods.filter_map(node).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    match nodes {
        CanaryNodes::Named(names) => names.clone(),
        CanaryNodes::All => with(false).into_iter().collect(),
        CanaryNodes::One => with(true).into_iter().chain(with(false)).take(1).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canaries_go_to_a_ready_node_if_there_is_one_to_all_or_to_those_named() {
        let pod = |node: &str, ready: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "nodeName": node,
                "containers": [] }, "status": { "conditions": [{ "type": "Ready", "status": ready }] } }))
            .unwrap()
        };
        let both = [pod("a", "False"), pod("b", "True")];
        assert_eq!(chosen(&CanaryNodes::One, &both), ["b"]);
        assert_eq!(chosen(&CanaryNodes::One, &both[..1]), ["a"]);
        assert_eq!(chosen(&CanaryNodes::All, &both), ["a", "b"]);
        assert_eq!(chosen(&CanaryNodes::Named(vec!["z".to_owned()]), &both), ["z"]);
        assert!(chosen(&CanaryNodes::One, &[]).is_empty());
    }
}
