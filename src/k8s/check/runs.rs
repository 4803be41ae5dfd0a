//! The canaries of a check: each is removed, whatever becomes of it.

use std::time::{SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use tokio::time::{Instant, sleep};

use super::canary::{self, Canary, LABEL};
use super::cluster::{CANARIES, POLL, unanswered};
use super::{ClusterCheck, Row, pods};
use crate::k8s::ApiError;
use crate::k8s::client::call;
use crate::lock::lock;

impl ClusterCheck {
    /// Removes this check's canaries.
    pub async fn clean(&self) -> Result<(), ApiError> {
        let names: Vec<_> = lock(&self.canaries).iter().cloned().collect();
        for name in names {
            self.remove(&name).await?;
        }
        Ok(())
    }

    fn canary_pods(&self) -> kube::Api<Pod> {
        kube::Api::namespaced(self.client.clone(), &self.options.canary_namespace)
    }

    /// Nodes with the row of each.
    pub(super) async fn run_canaries(
        &self,
        set: Option<&DaemonSet>,
        drivers: &[Pod],
    ) -> Vec<(String, Row)> {
        let nodes = pods::chosen(&self.options.nodes, drivers);
        let Some(set) = set.filter(|_| !nodes.is_empty()) else {
            let row = Row::skipped("canary", "no node has a pod of the driver");
            return vec![(String::new(), row)];
        };
        if let Err(error) = self.sweep().await {
            return vec![(String::new(), unanswered("canary", &error))];
        }
        let runs = nodes.into_iter().map(|node| async move {
            let row = self.run_canary(set, &node).await;
            (node, row)
        });
        stream::iter(runs).buffered(CANARIES).collect().await
    }

    async fn run_canary(&self, set: &DaemonSet, node: &str) -> Row {
        let what = canary::what(node);
        let canary = Canary {
            namespace: self.options.canary_namespace.clone(),
            name: fresh_name(lock(&self.canaries).len()),
            node: node.to_owned(),
            driver: self.options.driver.clone(),
            timeout: self.options.timeout,
        };
        let Some(pod) = canary.pod(set) else {
            let way = "install the driver again: deploy/README.md";
            return Row::failed(what, "the DaemonSet has no container to take the image of", way);
        };
        // Before it is there: who ends in between still removes it.
        lock(&self.canaries).insert(canary.name.clone());
        let row = match self.until_ended(&canary, &pod).await {
            Ok(row) => row,
            Err(error) => unanswered(&what, &error),
        };
        match self.remove(&canary.name).await {
            Ok(()) => row,
            Err(error) => Row::failed(
                what,
                format!("{}; and the pod can't be removed: {error}", row.found),
                format!("kubectl -n {} delete pod {}", canary.namespace, canary.name),
            ),
        }
    }

    async fn until_ended(&self, canary: &Canary, pod: &Pod) -> Result<Row, ApiError> {
        let (pods, post) = (self.canary_pods(), PostParams::default());
        let end = Instant::now() + canary.timeout;
        call("create a canary pod", pods.create(&post, pod)).await?;
        loop {
            let now = call("read the canary pod", pods.get(&canary.name)).await?;
            let is_late = Instant::now() >= end;
            let phase = now.status.as_ref().and_then(|status| status.phase.as_deref());
            if is_late || phase == Some("Failed") || phase == Some("Succeeded") {
                let events = self.events(canary).await?;
                let late = || {
                    let row = canary.failed(&now, &events);
                    let limit = humantime::format_duration(canary.timeout);
                    let found = format!("it did not end within {limit}: {}", row.found);
                    Row { found, ..row }
                };
                return Ok(canary.ended(&now, &events).unwrap_or_else(late));
            }
            sleep(POLL).await;
        }
    }

    async fn events(&self, canary: &Canary) -> Result<Vec<Event>, ApiError> {
        let events: kube::Api<Event> =
            kube::Api::namespaced(self.client.clone(), &canary.namespace);
        let of = format!("involvedObject.kind=Pod,involvedObject.name={}", canary.name);
        let list = ListParams::default().fields(&of);
        Ok(call("list the canary's Events", events.list(&list)).await?.items)
    }

    async fn remove(&self, name: &str) -> Result<(), ApiError> {
        let deleted = self.delete(name).await;
        if deleted.is_ok() {
            lock(&self.canaries).remove(name);
        }
        deleted
    }

    async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let (pods, params) = (self.canary_pods(), DeleteParams::default());
        match call("delete a canary pod", pods.delete(name, &params)).await {
            Ok(_) | Err(ApiError::Gone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what checks left that were killed.
    async fn sweep(&self) -> Result<(), ApiError> {
        let list = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let found = call("list canary pods", self.canary_pods().list(&list)).await?;
        for pod in found.items.iter().filter(|pod| canary::is_left(pod, Timestamp::now())) {
            self.delete(pods::name(pod)).await?;
        }
        Ok(())
    }
}

/// No other check has it.
fn fresh_name(number: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("nix-csi-check-{:x}-{:x}-{number}", now.as_nanos(), std::process::id())
}
