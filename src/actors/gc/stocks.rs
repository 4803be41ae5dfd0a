//! What the store holds, counted now and then: it reads the whole table of paths.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::metrics;
use crate::lock::lock;
use crate::nix::Garbage;

const EVERY: Duration = Duration::from_secs(60);

/// When it was counted last; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Stocks(Arc<Mutex<Option<Instant>>>);

impl Stocks {
    /// Blocking. Counts and shows it, if it is time to.
    pub(super) fn look(&self, store: &dyn Garbage) {
        {
            let mut last = lock(&self.0);
            if last.is_some_and(|at| at.elapsed() < EVERY) {
                return;
            }
            *last = Some(Instant::now());
        }
        match store.stock() {
            Ok(stock) => metrics::show_stock(stock),
            Err(error) => tracing::debug!(%error, "can't count what the store holds"),
        }
    }
}
