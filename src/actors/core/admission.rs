//! Backpressure at the edge. Mailboxes are not bounded in any useful way (each address holds a slot
//! of its own), so the edge counts instead.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// At most `limit` callers may hold a permit; the next is refused at once, not queued.
#[derive(Debug, Clone)]
pub struct Admission {
    permits: Arc<Semaphore>,
    limit: usize,
    what: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} {what} are already waiting: try again later")]
pub struct Overloaded {
    pub what: &'static str,
    pub limit: usize,
}

impl Admission {
    pub fn new(what: &'static str, limit: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(limit)), limit, what }
    }

    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Overloaded> {
        self.permits
            .clone()
            .try_acquire_owned()
            .map_err(|_| Overloaded { what: self.what, limit: self.limit })
    }
}
