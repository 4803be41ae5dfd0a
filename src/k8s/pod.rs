//! A pod, as much of it as a node's driver needs to know.

use k8s_openapi::api::core::v1 as core;

use super::Change;

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// `spec.hostUsers`, whose default is true: false gives the pod a user namespace of its own.
    pub host_users: bool,
    /// Somebody has deleted it: its containers may still run, but none is started any more.
    pub is_leaving: bool,
}

/// What a watch of the node's pods tells.
pub type PodChange = Change<Pod>;

impl Pod {
    /// One without a uid or a name was never stored by an API server.
    pub(super) fn of(pod: core::Pod) -> Option<Self> {
        let core::Pod { metadata, spec, .. } = pod;
        Some(Self {
            uid: metadata.uid?,
            namespace: metadata.namespace?,
            name: metadata.name?,
            host_users: spec.and_then(|spec| spec.host_users).unwrap_or(true),
            is_leaving: metadata.deletion_timestamp.is_some(),
        })
    }
}
