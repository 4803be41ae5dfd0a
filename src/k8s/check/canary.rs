//! The pod that mounts a volume, and what became of it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, Event, Pod};
use serde_json::{Value, json};

use super::{Row, pods};

/// What canaries have, and nothing else of the driver's.
pub(super) const LABEL: (&str, &str) = ("app.kubernetes.io/name", "nix-csi-check");

/// A canary older than this is an ended check's, whatever its deadline.
const LEFT_AFTER: Duration = Duration::from_secs(600);
/// Where the volume is: an image of Nix's own has its programs in `/nix`.
const AT: &str = "/canary";
/// Container of the DaemonSet that is the driver.
const DRIVER: &str = "nix-csi";

pub(super) fn what(node: &str) -> String {
    format!("canary on {node}")
}

/// What canaries mount; Nix makes it by itself, without a shell, a network or nixpkgs. `text` is a file's in
/// there, and nothing that Nix would have to quote.
pub fn expression(text: &str) -> String {
    format!(
        "derivation {{ name = \"nix-csi-check\"; system = builtins.currentSystem or \"builtin\"; \
         builder = \"builtin:buildenv\"; derivations = \"\"; \
         manifest = builtins.toFile \"nix-csi-check.txt\" \"{text}\"; }}"
    )
}

/// What a canary is made of.
#[derive(Debug, Clone)]
pub(super) struct Canary {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) driver: String,
    pub(super) timeout: Duration,
}

impl Canary {
    /// A text that no store has yet: what is new is built, and uploaded where there is a cache.
    fn text(&self) -> &str {
        &self.name
    }

    /// The driver's own image is on the node, and what is in a namespace of restricted pods may run too.
    pub(super) fn pod(&self, set: &DaemonSet) -> Option<Pod> {
        let template = set.spec.as_ref()?.template.spec.as_ref()?;
        let driver = driver(&template.containers)?;
        let deadline = self.timeout.as_secs() + 30;
        let pod: Value = json!({
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": { LABEL.0: LABEL.1 },
            },
            "spec": {
                "nodeName": self.node,
                "restartPolicy": "Never",
                "activeDeadlineSeconds": deadline,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "imagePullSecrets": template.image_pull_secrets,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{
                    "name": "canary",
                    "image": driver.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": driver.command,
                    "args": ["canary", AT, self.text()],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65534,
                        "runAsGroup": 65534,
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "volumeMounts": [{ "name": "nix", "mountPath": AT, "readOnly": true }],
                }],
                "volumes": [{
                    "name": "nix",
                    "csi": {
                        "driver": self.driver,
                        "readOnly": true,
                        "volumeAttributes": { "nixExpr": expression(self.text()) },
                    },
                }],
            },
        });
        serde_json::from_value(pod).ok()
    }

    /// `None`: it has not ended.
    pub(super) fn ended(&self, pod: &Pod, events: &[Event]) -> Option<Row> {
        match pod.status.as_ref()?.phase.as_deref()? {
            "Succeeded" => {
                Some(Row::ok(what(&self.node), "a volume was mounted and its store was read"))
            }
            "Failed" => Some(self.failed(pod, events)),
            _ => None,
        }
    }

    /// With what its Events and its container say.
    pub(super) fn failed(&self, pod: &Pod, events: &[Event]) -> Row {
        let Self { namespace, .. } = self;
        let found = reason(events).unwrap_or_else(|| pods::why_not_ready(pod));
        let way = format!(
            "docs/check.md; what namespace {namespace} may have: `nix-csi policy explain --namespace {namespace}` \
             in the driver's pod"
        );
        Row::failed(what(&self.node), found, way)
    }
}

fn driver(containers: &[Container]) -> Option<&Container> {
    containers.iter().find(|container| container.name == DRIVER).or(containers.first())
}

/// The last warning: of a failed mount, if there is one.
fn reason(events: &[Event]) -> Option<String> {
    let mut warnings: Vec<_> =
        events.iter().filter(|e| e.type_.as_deref() == Some("Warning")).collect();
    warnings.sort_by_key(|event| {
        let is_mount = event.reason.as_deref() == Some("FailedMount");
        (is_mount, event.last_timestamp.clone(), event.event_time.clone())
    });
    let last = warnings.last()?;
    let (reason, message) = (last.reason.as_deref()?, last.message.as_deref().unwrap_or_default());
    Some(format!("{reason}: {message}"))
}

/// Whether its check ended without removing it.
pub(super) fn is_left(pod: &Pod, now: Timestamp) -> bool {
    let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    let most = LEFT_AFTER.as_secs().max(deadline.unsigned_abs() + 60);
    let Some(created) = pod.metadata.creation_timestamp.as_ref() else { return false };
    now.as_second() - created.0.as_second() > i64::try_from(most).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
