//! What a check asks of the API server; its canaries are in `runs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::Request;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use tokio::time::{Instant, sleep};

use super::samples::{Asked, Samples};
use super::{CheckOptions, Row, judge, pods, samples};
use crate::k8s::ApiError;
use crate::k8s::client::{self, call};

/// Of the API server, by one canary.
pub(super) const POLL: Duration = Duration::from_millis(500);
/// At once.
pub(super) const CANARIES: usize = 8;
/// For what a canary brought to be uploaded.
const UPLOAD: Duration = Duration::from_secs(30);
const RIGHTS: &str = "docs/check.md lists the rights that it needs";

/// One check of an installation.
pub struct ClusterCheck {
    pub(super) client: Client,
    pub(super) options: CheckOptions,
    /// Canaries that may be there.
    pub(super) canaries: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for ClusterCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCheck").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ClusterCheck {
    /// Reads the configuration: that of the file, else of a person or a pod. Nothing is asked yet.
    pub async fn open(kubeconfig: Option<&Path>, options: CheckOptions) -> Result<Self, ApiError> {
        Ok(Self::new(client::open_as_person(kubeconfig).await?, options))
    }

    fn new(client: Client, options: CheckOptions) -> Self {
        Self { client, options, canaries: Mutex::default() }
    }

    /// All checks, in the order in which a person would look. Whoever gives up waiting calls [`Self::clean`].
    pub async fn run(&self) -> Vec<Row> {
        let mut rows = vec![self.csi_driver().await];
        let set = self.daemon_set().await;
        let drivers = match &set {
            Ok(Some(set)) => self.pods(set.spec.as_ref().map(|spec| &spec.selector)).await,
            _ => Ok(Vec::new()),
        };
        let both = set.and_then(|set| Ok((set, drivers?)));
        let (set, drivers) = match both {
            Ok((set, pods)) => {
                rows.push(judge::daemon_set(&self.options.namespace, set.as_ref(), &pods));
                (set, pods)
            }
            Err(error) => {
                rows.push(unanswered(judge::NODES, &error));
                (None, Vec::new())
            }
        };
        let caches = self.cache(&mut rows).await;
        rows.push(self.registered(&drivers).await);
        let before = self.ask_all(&drivers).await;
        let mut canaries = self.run_canaries(set.as_ref(), &drivers).await;
        let nodes: BTreeSet<_> = canaries.iter().map(|(node, _)| node.as_str()).collect();
        let after = self.after_uploads(&drivers, before, &nodes).await;
        rows.extend(canaries.drain(..).map(|(_, row)| row));
        rows.push(samples::cache(&after));
        rows.push(samples::builders(&self.ask_all(&caches).await));
        rows
    }

    async fn csi_driver(&self) -> Row {
        let drivers: kube::Api<CSIDriver> = kube::Api::all(self.client.clone());
        let name = &self.options.driver;
        match call("read the CSIDriver", drivers.get_opt(name)).await {
            Ok(found) => judge::csi_driver(name, found.as_ref()),
            Err(error) => unanswered(judge::CSI_DRIVER, &error),
        }
    }

    async fn daemon_set(&self) -> Result<Option<DaemonSet>, ApiError> {
        let sets: kube::Api<DaemonSet> = self.own();
        let found = call("list DaemonSets", sets.list(&component("node"))).await?;
        Ok(found.items.into_iter().next())
    }

    /// Its row, and the cache's pods.
    async fn cache(&self, rows: &mut Vec<Row>) -> Vec<Pod> {
        let found = async {
            let sets: kube::Api<StatefulSet> = self.own();
            let found = call("list StatefulSets", sets.list(&component("cache"))).await?;
            let set = found.items.into_iter().next();
            let pods = match &set {
                Some(set) => self.pods(set.spec.as_ref().map(|spec| &spec.selector)).await?,
                None => Vec::new(),
            };
            Ok::<_, ApiError>((set, pods))
        };
        match found.await {
            Ok((set, pods)) => {
                rows.push(judge::stateful_set(&self.options.namespace, set.as_ref(), &pods));
                pods
            }
            Err(error) => {
                rows.push(unanswered(judge::CACHE, &error));
                Vec::new()
            }
        }
    }

    async fn registered(&self, drivers: &[Pod]) -> Row {
        let nodes: kube::Api<CSINode> = kube::Api::all(self.client.clone());
        match call("list CSINodes", nodes.list(&ListParams::default())).await {
            Ok(listed) => judge::registered(&self.options.driver, drivers, &listed.items),
            Err(error) => unanswered(judge::REGISTERED, &error),
        }
    }

    fn own<K>(&self) -> kube::Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        kube::Api::namespaced(self.client.clone(), &self.options.namespace)
    }

    async fn pods(&self, selector: Option<&LabelSelector>) -> Result<Vec<Pod>, ApiError> {
        let labels: BTreeMap<_, _> =
            selector.and_then(|s| s.match_labels.clone()).unwrap_or_default();
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods: kube::Api<Pod> = self.own();
        let list = ListParams::default().labels(&labels.join(","));
        Ok(call("list pods", pods.list(&list)).await?.items)
    }

    /// The metrics of each pod that runs, by way of the API server.
    async fn ask_all(&self, pods: &[Pod]) -> Vec<Asked> {
        let runs = |pod: &&Pod| {
            pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let asked = pods.iter().filter(runs).map(|pod| self.ask(pod));
        stream::iter(asked).buffered(CANARIES).collect().await
    }

    async fn ask(&self, pod: &Pod) -> Asked {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:{}/proxy/metrics",
            self.options.namespace,
            pod.name_any(),
            pods::port(pod)
        );
        let shown = pods::node(pod).unwrap_or_else(|| pods::name(pod)).to_owned();
        let request = match Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return (shown, Err(error.to_string())),
        };
        let said = call("read a pod's metrics", self.client.request_text(request)).await;
        (shown, said.map(Samples::new).map_err(|e| e.to_string()))
    }

    /// Waits until the nodes that ran a canary have pushed what it brought, or for as long as that may take.
    async fn after_uploads(
        &self,
        drivers: &[Pod],
        before: Vec<Asked>,
        nodes: &BTreeSet<&str>,
    ) -> Vec<Asked> {
        let end = Instant::now() + UPLOAD;
        let pushes: BTreeMap<_, _> = before
            .iter()
            .filter_map(|(node, asked)| Some((node.clone(), asked.as_ref().ok()?.pushes())))
            .collect();
        loop {
            let now = self.ask_all(drivers).await;
            let waits = now.iter().any(|(node, asked)| {
                let Ok(samples) = asked else { return false };
                let before = pushes.get(node).copied().unwrap_or(0.0);
                // One that is known to fail is not tried again at once.
                nodes.contains(node.as_str())
                    && matches!(samples.last_upload(), Some("ok" | "none"))
                    && samples.pushes() <= before
            });
            if !waits || Instant::now() >= end {
                return now;
            }
            sleep(POLL).await;
        }
    }
}

fn component(name: &str) -> ListParams {
    let labels = format!("app.kubernetes.io/name=nix-csi,app.kubernetes.io/component={name}");
    ListParams::default().labels(&labels)
}

pub(super) fn unanswered(what: &str, error: &ApiError) -> Row {
    let way = match error {
        ApiError::Forbidden { .. } => RIGHTS,
        _ => "does `kubectl get nodes` answer, with the same kubeconfig?",
    };
    Row::failed(what, error.to_string(), way)
}

#[cfg(test)]
mod tests;
