//! Who uses a view. Counted outside of the actor, so that neither side's restart loses a user.

use std::sync::Arc;

use dashmap::DashMap;

use crate::mount::{View, ViewId};

/// Users per view. A view without an entry has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Arc<DashMap<ViewId, usize>>);

impl Leases {
    pub(super) fn grant(&self, view: &Arc<View>, was_there: bool) -> Arc<Lease> {
        *self.0.entry(view.id.clone()).or_default() += 1;
        Arc::new(Lease { view: view.clone(), was_there, leases: self.clone() })
    }

    /// How many views have users.
    pub(super) fn used(&self) -> usize {
        self.0.len()
    }

    pub(super) fn users(&self, view: &ViewId) -> usize {
        self.0.get(view).map_or(0, |n| *n)
    }
}

/// Keeps a view, and the GC root of its closure, until dropped.
#[derive(Debug)]
pub struct Lease {
    view: Arc<View>,
    was_there: bool,
    leases: Leases,
}

impl Lease {
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether the view was there when it was asked for.
    pub fn was_there(&self) -> bool {
        self.was_there
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut users) = self.leases.0.get_mut(&self.view.id) {
            *users -= 1;
        }
        self.leases.0.remove_if(&self.view.id, |_, users| *users == 0);
    }
}
