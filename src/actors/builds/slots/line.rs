//! Who holds slots, who waits, and who is the next. Pure.

use std::collections::{HashMap, VecDeque};

use crate::model::Tenant;

/// How many slots a tenant may hold; `None`: as many as there are.
pub(super) type Most = dyn Fn(&Tenant) -> Option<u32> + Send + Sync;

/// While a slot is free, those who wait are at their limits.
#[derive(Clone, Default)]
pub(super) struct Line {
    count: usize,
    /// Since the oldest was admitted.
    held: VecDeque<(u64, Tenant)>,
    /// Of those who hold or wait.
    pub(super) shares: HashMap<Tenant, Share>,
    tickets: u64,
    admissions: u64,
}

#[derive(Clone)]
pub(super) struct Share {
    held: usize,
    /// At most so many. Those who had more keep them.
    most: usize,
    waiting: VecDeque<u64>,
    /// The number of the last admission. A tenant that comes, again or for the first time, counts
    /// as served just before the last one was: forgetting it gives it no advantage over those who
    /// wait longer, and it is before whoever was served last.
    served: u64,
}

impl Line {
    pub(super) fn new(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// A ticket, and whether a slot was free.
    pub(super) fn enter(&mut self, tenant: &Tenant, most: &Most) -> (u64, bool) {
        self.tickets += 1;
        let served = self.admissions.saturating_sub(1);
        let newcomer =
            || Share { held: 0, most: at_most(most, tenant), waiting: VecDeque::new(), served };
        let share = self.shares.entry(tenant.clone()).or_insert_with(newcomer);
        share.waiting.push_back(self.tickets);
        (self.tickets, self.admit() == Some(self.tickets))
    }

    pub(super) fn leave(&mut self, ticket: u64, tenant: &Tenant) {
        if let Some(share) = self.shares.get_mut(tenant) {
            share.waiting.retain(|other| *other != ticket);
        }
        self.forget_idle(tenant);
    }

    /// The ticket that is admitted instead.
    pub(super) fn release(&mut self, ticket: u64) -> Option<u64> {
        let at = self.held.iter().position(|(other, _)| *other == ticket)?;
        let (_, tenant) = self.held.remove(at)?;
        if let Some(share) = self.shares.get_mut(&tenant) {
            share.held -= 1;
        }
        let admitted = self.admit();
        self.forget_idle(&tenant);
        admitted
    }

    /// The limits as they are now; who is admitted therefore.
    pub(super) fn limit(&mut self, most: &Most) -> Vec<u64> {
        for (tenant, share) in &mut self.shares {
            share.most = at_most(most, tenant);
        }
        std::iter::from_fn(|| self.admit()).collect()
    }

    pub(super) fn is_at_limit(&self, tenant: &Tenant) -> bool {
        self.shares.get(tenant).is_some_and(Share::is_at_limit)
    }

    fn admit(&mut self) -> Option<u64> {
        if self.held.len() == self.count {
            return None;
        }
        let waiting = self.shares.iter_mut();
        let waiting = waiting.filter(|(_, s)| !s.waiting.is_empty() && !s.is_at_limit());
        let (tenant, share) = waiting
            .min_by_key(|(_, share)| (share.held, share.served, share.waiting.front().copied()))?;
        let ticket = share.waiting.pop_front()?;
        self.admissions += 1;
        share.held += 1;
        share.served = self.admissions;
        self.held.push_back((ticket, tenant.clone()));
        Some(ticket)
    }

    fn forget_idle(&mut self, tenant: &Tenant) {
        if self.shares.get(tenant).is_some_and(|s| s.held == 0 && s.waiting.is_empty()) {
            self.shares.remove(tenant);
        }
    }

    /// Positions by ticket, from 1: what happens if the oldest slot is always the next to be free.
    pub(super) fn order(&self) -> HashMap<u64, usize> {
        let mut then = self.clone();
        let oldest_ends = || {
            let oldest = then.held.front()?.0;
            Some(then.release(oldest))
        };
        std::iter::from_fn(oldest_ends).flatten().zip(1..).collect()
    }
}

impl Share {
    fn is_at_limit(&self) -> bool {
        self.held >= self.most
    }
}

/// At least one, or its requests would wait for ever.
fn at_most(most: &Most, tenant: &Tenant) -> usize {
    most(tenant).map_or(usize::MAX, |most| most.max(1) as usize)
}
