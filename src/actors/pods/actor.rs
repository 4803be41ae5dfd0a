//! The pods actor; see the module above.

use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::{Instant, sleep};

use super::PodTable;
use super::sweep::{Absences, candidates, sweep};
use crate::actors::core::{Ctx, impl_supervised};
use crate::actors::metrics;
use crate::actors::volume::Directory;
use crate::k8s::{Api, PodChange};
use crate::metrics::count;

/// Between looks for volumes without a pod.
const TICK: Duration = Duration::from_secs(30);

pub struct PodsConfig {
    pub api: Arc<dyn Api>,
    pub table: PodTable,
    pub directory: Directory,
    /// How long a pod must be gone before a volume of it is unpublished without a word.
    pub sweep_after: Duration,
}

pub struct Pods {
    config: PodsConfig,
    absences: Absences,
    is_sweeping: bool,
}

impl_supervised!(Pods, "pods", |this| {
    this.absences.clear();
    this.is_sweeping = false;
    this.config.table.learn(PodChange::Lost("restarted".to_owned()));
});

impl Pods {
    pub fn new(config: PodsConfig) -> Self {
        Self { config, absences: Absences::new(), is_sweeping: false }
    }

    /// One change after the other: the next is asked for when this one is known.
    fn follow(mut changes: BoxStream<'static, PodChange>, ctx: &mut Ctx<Self>) {
        let next = async move {
            let change = changes.next().await;
            (change, changes)
        };
        ctx.effect(next, |this: &mut Self, (change, changes), ctx| {
            let Some(change) = change else {
                return ctx.fail("the watch of the node's pods ended");
            };
            if let PodChange::Lost(reason) = &change {
                metrics::WATCHES_LOST.inc();
                tracing::warn!(reason, "the watch of the node's pods broke");
            }
            this.config.table.learn(change);
            metrics::PODS.set(count(this.config.table.len()));
            Self::follow(changes, ctx);
        });
    }

    fn tick(ctx: &mut Ctx<Self>) {
        ctx.effect(sleep(TICK), |this: &mut Self, (), ctx| {
            this.config.table.forget_old();
            this.look(ctx);
            Self::tick(ctx);
        });
    }

    fn look(&mut self, ctx: &mut Ctx<Self>) {
        if std::mem::replace(&mut self.is_sweeping, true) {
            return;
        }
        let directory = self.config.directory.clone();
        let listed = async move {
            // Before, a volume may have an actor that does not know it yet.
            directory.recovered().await.ok()?;
            Some(directory.status().await)
        };
        ctx.effect(listed, |this, volumes, ctx| {
            let due = (Instant::now(), this.config.sweep_after);
            let volumes = volumes.unwrap_or_default();
            let found = candidates(&mut this.absences, volumes, &this.config.table, due);
            let PodsConfig { api, directory, .. } = &this.config;
            let sweeps: Vec<_> = found
                .into_iter()
                .map(|candidate| sweep(candidate, api.clone(), directory.clone()))
                .collect();
            let all = async move {
                for one in sweeps {
                    one.await;
                }
            };
            ctx.effect(all, |this, (), _| this.is_sweeping = false);
        });
    }
}

impl Actor for Pods {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        Self::follow(self.config.api.watch_pods(), ctx);
        Self::tick(ctx);
    }
}
