//! What the store holds, counted now and then: it reads the whole table of paths.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::metrics;
use super::scheduler::GcScheduler;
use crate::actors::core::{Ctx, blocking};
use crate::nix::Garbage;

const EVERY: Duration = Duration::from_secs(60);
/// Of the time, counting takes no more than this part.
const SHARE: u32 = 100;

/// When it may be counted next; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Stocks(Arc<Mutex<Option<Instant>>>);

impl Stocks {
    /// Counts and shows it, if it is time to. No look at the disk waits for it.
    pub(super) fn count(&self, store: &Arc<dyn Garbage>, ctx: &mut Ctx<GcScheduler>) {
        let is_due = |next: Option<Instant>| next.is_none_or(|next| Instant::now() >= next);
        // Not while it is being counted.
        if self.0.try_lock().is_ok_and(|next| is_due(*next)) {
            let (store, this) = (store.clone(), self.clone());
            ctx.effect(blocking(move || this.look(&*store)), |_, _, _| ());
        }
    }

    /// Blocking.
    fn look(&self, store: &dyn Garbage) {
        let Ok(mut next) = self.0.try_lock() else { return };
        let began = Instant::now();
        match store.stock() {
            Ok(stock) => metrics::show_stock(stock),
            Err(error) => tracing::debug!(%error, "can't count what the store holds"),
        }
        *next = Some(Instant::now() + EVERY.max(SHARE * began.elapsed()));
    }
}
