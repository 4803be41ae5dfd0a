//! How many views there are, and how many mounts.

use std::time::Duration;

use actix::{Handler, Message};
use tokio::time::Instant;

use super::actor::Views;
use super::metrics;
use crate::actors::core::Ctx;

/// Between two counts of the mounts.
const EVERY: Duration = Duration::from_secs(15);

/// Shows how many views are used and how many idle.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Count;

impl Views {
    /// Counts the mounts on another thread, if it is time to.
    pub(super) fn count_mounts(&mut self, ctx: &mut Ctx<Self>) {
        if self.counted.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.counted = Some(Instant::now());
        ctx.effect(self.hands.clone().count_mounts(), |_, counted, _| match counted {
            Ok(mounts) => metrics::show_mounts(mounts),
            Err(error) => tracing::debug!(%error, "can't count the mounts"),
        });
    }
}

impl Handler<Count> for Views {
    type Result = ();

    fn handle(&mut self, _: Count, _: &mut Ctx<Self>) {
        metrics::show(self.leases.used(), self.ready.len());
    }
}
