//! [`Api`] over HTTP, as the driver's service account or as a kubeconfig says.

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::storage::v1::CSINode;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;

use super::client::{self, WATCH_SECONDS};
use super::{Api, ApiError, Change, ConfigData, Event, EventName, Pod, PodChange, watch};

#[derive(Clone)]
pub struct RealApi {
    client: Client,
    node: Arc<str>,
    driver: Arc<str>,
}

impl std::fmt::Debug for RealApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealApi").field("node", &self.node).finish_non_exhaustive()
    }
}

impl RealApi {
    /// Reads the configuration; nothing is asked of the API server yet.
    pub async fn open(
        node: &str,
        driver: &str,
        kubeconfig: Option<&Path>,
    ) -> Result<Self, ApiError> {
        let client = client::open(kubeconfig).await?;
        Ok(Self { client, node: node.into(), driver: driver.into() })
    }

    fn events(&self, namespace: &str) -> kube::Api<events::Event> {
        kube::Api::namespaced(self.client.clone(), namespace)
    }
}

/// [`client::call`], for the trait.
fn call<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = kube::Result<T>> + Send + 'static,
) -> BoxFuture<'static, Result<T, ApiError>> {
    client::call(what, work).boxed()
}

impl Api for RealApi {
    fn watch_pods(&self) -> BoxStream<'static, PodChange> {
        let pods: kube::Api<core::Pod> = kube::Api::all(self.client.clone());
        let config = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.node))
            .timeout(WATCH_SECONDS)
            .any_semantic();
        watch::changes(pods, config, Pod::of).boxed()
    }

    fn watch_config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxStream<'static, Change<ConfigData>> {
        let maps: kube::Api<core::ConfigMap> =
            kube::Api::namespaced(self.client.clone(), namespace);
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(WATCH_SECONDS);
        watch::changes(maps, config, |map| Some(map.data.unwrap_or_default())).boxed()
    }

    fn find_pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'static, Result<Option<Pod>, ApiError>> {
        let pods: kube::Api<core::Pod> = kube::Api::namespaced(self.client.clone(), namespace);
        let name = name.to_owned();
        call("read a pod", async move { Ok(pods.get_opt(&name).await?.and_then(Pod::of)) })
    }

    fn post_event(&self, event: Event) -> BoxFuture<'static, Result<EventName, ApiError>> {
        let object = event.object(&self.driver, &self.node);
        let name = EventName {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let events = self.events(&name.namespace);
        call("post an Event", async move {
            match events.create(&PostParams::default(), &object).await {
                // Posted before, and the answer was lost.
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(name),
                created => created.map(|_| name),
            }
        })
    }

    fn repeat_event(
        &self,
        event: EventName,
        count: i32,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        let events = self.events(&event.namespace);
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let series = json!({ "series": { "count": count, "lastObservedTime": now } });
        call("update an Event", async move {
            events.patch(&event.name, &PatchParams::default(), &Patch::Merge(series)).await?;
            Ok(())
        })
    }

    fn is_driver_listed(&self) -> BoxFuture<'static, Result<bool, ApiError>> {
        let nodes: kube::Api<CSINode> = kube::Api::all(self.client.clone());
        let (node, driver) = (self.node.clone(), self.driver.clone());
        call("read the node's CSINode", async move {
            let node = nodes.get_opt(&node).await?;
            Ok(node.is_some_and(|node| node.spec.drivers.iter().any(|d| *d.name == *driver)))
        })
    }

    fn remove_taint(&self, key: &str) -> BoxFuture<'static, Result<bool, ApiError>> {
        let nodes: kube::Api<core::Node> = kube::Api::all(self.client.clone());
        let (name, key) = (self.node.clone(), key.to_owned());
        call("take the startup taint from the node", async move {
            let node = nodes.get(&name).await?;
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let kept: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
            if kept.len() == taints.len() {
                return Ok(false);
            }
            // With the version that was read: another's taint must not be lost.
            let patch = json!({
                "metadata": { "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": kept },
            });
            nodes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests;
