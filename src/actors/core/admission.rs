//! Backpressure at the edge. Mailboxes are not bounded in any useful way (each address holds a slot
//! of its own), so the edge counts instead.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::Tenant;

/// At most `limit` callers may hold a permit; the next is refused at once, not queued.
#[derive(Debug, Clone)]
pub struct Admission {
    permits: Arc<Semaphore>,
    limit: usize,
    what: &'static str,
    setting: &'static str,
}

/// At most `limit` of each namespace may hold a share. What is of no pod is the operator's, and has none.
#[derive(Debug, Clone)]
pub struct Shares {
    held: Arc<DashMap<Tenant, usize>>,
    limit: usize,
    what: &'static str,
    setting: &'static str,
}

/// Counts for its namespace until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the share back"]
pub struct Share(Option<(Arc<DashMap<Tenant, usize>>, Tenant)>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} {what} are already waiting ({setting}): try again later")]
pub struct Overloaded {
    pub what: String,
    pub limit: usize,
    pub setting: &'static str,
}

impl Admission {
    /// `setting` is what raises the limit.
    pub fn new(what: &'static str, setting: &'static str, limit: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(limit)), limit, what, setting }
    }

    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Overloaded> {
        let Self { limit, what, setting, .. } = *self;
        let overloaded = |_| Overloaded { what: what.to_owned(), limit, setting };
        self.permits.clone().try_acquire_owned().map_err(overloaded)
    }
}

impl Shares {
    /// `setting` is what raises the limit.
    pub fn new(what: &'static str, setting: &'static str, limit: usize) -> Self {
        Self { held: Arc::default(), limit, what, setting }
    }

    pub fn enter(&self, tenant: &Tenant) -> Result<Share, Overloaded> {
        let Some(namespace) = tenant.as_namespace() else { return Ok(Share(None)) };
        let mut held = self.held.entry(tenant.clone()).or_default();
        if *held >= self.limit {
            let what = format!("{} of namespace {namespace}", self.what);
            return Err(Overloaded { what, limit: self.limit, setting: self.setting });
        }
        *held += 1;
        drop(held);
        Ok(Share(Some((self.held.clone(), tenant.clone()))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((held, tenant)) = &self.0 else { return };
        if let Some(mut held) = held.get_mut(tenant) {
            *held = held.saturating_sub(1);
        }
        held.remove_if(tenant, |_, held| *held == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_so_many_shares() {
        let shares = Shares::new("volumes", "--most", 2);
        let [web, ci] = ["web", "ci"].map(Tenant::namespace);
        let [first, _second] = [(); 2].map(|()| shares.enter(&web).unwrap());
        let refused = shares.enter(&web).unwrap_err().to_string();
        let told = "2 volumes of namespace web are already waiting (--most): try again later";
        assert_eq!(refused, told);
        drop(shares.enter(&ci).unwrap());
        assert!(!shares.held.contains_key(&ci), "who has none is forgotten");
        let _people: Vec<_> = (0..5).map(|_| shares.enter(&Tenant::local()).unwrap()).collect();
        drop(first);
        let _third = shares.enter(&web).unwrap();
        shares.enter(&web).unwrap_err();
    }
}
