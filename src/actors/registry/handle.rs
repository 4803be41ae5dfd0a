//! The registry as others hold it.

use std::collections::HashMap;
use std::sync::Arc;

use actix::Addr;
use tokio::sync::Notify;

use super::{BuilderRegistry, BuilderStatus, BuildersAsked, ListBuilders};
use crate::actors::core::{Backoff, End, ask, supervise, tell};
use crate::model::{Address, Announcement};

/// The actor ends when nobody holds it any more.
#[derive(Clone)]
pub struct RegistryHandle {
    registry: Addr<BuilderRegistry>,
    news: Arc<Notify>,
}

impl RegistryHandle {
    /// `on_end` is called once, when the registry gave up or nobody holds it any more.
    pub fn start(
        registry: BuilderRegistry,
        backoff: Backoff,
        on_end: impl FnOnce(End) + 'static,
    ) -> Self {
        let news = registry.news();
        Self { registry: supervise(registry, backoff, on_end), news }
    }

    /// What builders said that were asked; `None`: nothing.
    pub fn asked(&self, answers: HashMap<Address, Option<Announcement>>) {
        tell(&self.registry, BuildersAsked(answers));
    }

    /// Until there are builders that nobody has asked.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Sorted by name; empty where the registry is gone.
    pub async fn list(&self) -> Vec<BuilderStatus> {
        ask(&self.registry, ListBuilders).await.unwrap_or_default()
    }
}
