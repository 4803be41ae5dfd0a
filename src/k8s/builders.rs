//! The pods that build for the cache: the nodes' own, in one namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::runtime::watcher;

use super::client::{self, WATCH_SECONDS};
use super::{ApiError, Change, watch};

/// What a node's pod says of itself as a builder stands in annotations that begin so.
pub const ANNOTATIONS: &str = "nix.csi.store/";

/// The label that the node's pods have where nothing else is set.
pub const BUILDER_LABELS: &str = "app=nix-csi-node";

/// Pods of one list at once in memory, each several kilobytes as the API server has it.
const PAGE: u32 = 250;

/// Where builders are learnt of.
pub trait Builders: fmt::Debug + Send + Sync + 'static {
    /// The builders' pods: all of them first, then every change. Never ends; after a lost connection
    /// it begins anew by itself.
    fn watch_builders(&self) -> BoxStream<'static, BuilderChange>;
}

/// What a watch of the builders' pods tells.
pub type BuilderChange = Change<BuilderPod>;

/// A pod that may build, as much of it as matters to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderPod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// It runs, is ready, and nobody has deleted it.
    pub is_ready: bool,
    pub ip: Option<IpAddr>,
    /// With a subdomain, which is a headless service, it has a name of its own in the DNS.
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub node: Option<String>,
    /// Those under [`ANNOTATIONS`], by what follows it.
    pub annotations: BTreeMap<String, String>,
}

impl BuilderPod {
    /// One without a uid or a name was never stored by an API server.
    pub(super) fn of(pod: core::Pod) -> Option<Self> {
        let core::Pod { metadata, spec, status } = pod;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let own = |(key, value): (String, String)| {
            key.strip_prefix(ANNOTATIONS).map(|key| (key.to_owned(), value))
        };
        let is_ready = metadata.deletion_timestamp.is_none() && runs_ready(&status);
        Some(Self {
            uid: metadata.uid?,
            namespace: metadata.namespace?,
            name: metadata.name?,
            is_ready,
            ip: status.pod_ip.and_then(|ip| ip.parse().ok()),
            hostname: spec.hostname.filter(|name| !name.is_empty()),
            subdomain: spec.subdomain.filter(|name| !name.is_empty()),
            node: spec.node_name,
            annotations: metadata.annotations.into_iter().flatten().filter_map(own).collect(),
        })
    }
}

fn runs_ready(status: &core::PodStatus) -> bool {
    let conditions = status.conditions.iter().flatten();
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    status.phase.as_deref() == Some("Running") && ready.any(|ready| ready.status == "True")
}

/// [`Builders`] of an API server.
#[derive(Clone)]
pub struct RealBuilders {
    client: Client,
    namespace: Arc<str>,
    labels: Arc<str>,
}

impl fmt::Debug for RealBuilders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client: _, namespace, labels } = self;
        let mut shown = f.debug_struct("RealBuilders");
        shown.field("namespace", namespace).field("labels", labels).finish_non_exhaustive()
    }
}

impl RealBuilders {
    /// Pods of `namespace` that the selector `labels` fits. Reads the configuration; nothing is asked
    /// of the API server yet.
    pub async fn open(
        namespace: &str,
        labels: &str,
        kubeconfig: Option<&Path>,
    ) -> Result<Self, ApiError> {
        let client = client::open(kubeconfig).await?;
        Ok(Self { client, namespace: namespace.into(), labels: labels.into() })
    }
}

impl Builders for RealBuilders {
    fn watch_builders(&self) -> BoxStream<'static, BuilderChange> {
        let pods: kube::Api<core::Pod> =
            kube::Api::namespaced(self.client.clone(), &self.namespace);
        // The most recent list, since only that comes in pages: of one from the API server's own cache
        // all objects come at once, and it may be older than what is known here.
        let config =
            watcher::Config::default().labels(&self.labels).page_size(PAGE).timeout(WATCH_SECONDS);
        watch::changes(pods, config, BuilderPod::of).boxed()
    }
}

#[cfg(test)]
mod tests;
