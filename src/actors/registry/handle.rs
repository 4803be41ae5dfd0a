//! The registry as others hold it.

use std::collections::HashMap;

use actix::Addr;

use super::{BuilderRegistry, BuilderStatus, BuildersAsked, ListBuilders};
use crate::actors::core::{Backoff, End, ask, supervise, tell};
use crate::model::Address;

/// The actor ends when nobody holds it any more.
#[derive(Clone)]
pub struct RegistryHandle(Addr<BuilderRegistry>);

impl RegistryHandle {
    /// `on_end` is called once, when the registry gave up or nobody holds it any more.
    pub fn start(
        registry: BuilderRegistry,
        backoff: Backoff,
        on_end: impl FnOnce(End) + 'static,
    ) -> Self {
        Self(supervise(registry, backoff, on_end))
    }

    /// Which builders answered, of those that were asked.
    pub fn asked(&self, answers: HashMap<Address, bool>) {
        tell(&self.0, BuildersAsked(answers));
    }

    /// Sorted by name; empty where the registry is gone.
    pub async fn list(&self) -> Vec<BuilderStatus> {
        ask(&self.0, ListBuilders).await.unwrap_or_default()
    }
}
