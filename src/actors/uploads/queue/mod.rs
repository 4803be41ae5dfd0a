//! What is to be uploaded, when, and with what. Pure: the time is told.
//!
//! A closure is kept (its root and its record are being written), waits, is sent, or is dead. A batch
//! that the cache refused is tried again one by one, so that one bad closure does not hold up the
//! others; a cache that is away holds up all.

mod types;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub use types::{BATCH, MOST};
pub(super) use types::{Counts, Offered, Place};

use types::{FORGET_AFTER, Item, OUTAGE, backoff, longest_backoff};

use super::record::{Moment, Record};
use crate::model::StorePath;

type ByTime = BTreeMap<(Moment, u64), StorePath>;

#[derive(Debug)]
pub(super) struct Queue {
    attempts: u32,
    most: usize,
    items: HashMap<StorePath, Item>,
    next: u64,
    waiting: ByTime,
    dead: ByTime,
    sending: usize,
    /// While the cache is away.
    paused_until: Moment,
    /// Of the cache, in a row.
    failures: u32,
}

impl Queue {
    /// A closure is dead after so many refusals.
    pub(super) fn new(attempts: u32) -> Self {
        Self {
            attempts,
            most: MOST,
            items: HashMap::new(),
            next: 0,
            waiting: ByTime::new(),
            dead: ByTime::new(),
            sending: 0,
            paused_until: Moment::ZERO,
            failures: 0,
        }
    }

    pub(super) fn offer(&mut self, path: &StorePath, now: Moment) -> Offered {
        if self.items.contains_key(path) {
            return Offered::Known;
        }
        if self.items.len() >= self.most {
            return Offered::Full;
        }
        self.insert(Record::new(path.clone(), now), Place::Kept);
        Offered::New
    }

    /// Its record and its root are there.
    pub(super) fn kept(&mut self, record: Record, now: Moment) {
        self.place_record(record, now);
    }

    /// A record of an earlier start. None is turned away: they have their roots.
    pub(super) fn restore(&mut self, record: Record, now: Moment) {
        if !self.items.contains_key(&record.path) {
            self.place_record(record, now);
        }
    }

    fn place_record(&mut self, record: Record, now: Moment) {
        let place = match (record.dead, record.next_attempt) {
            (true, _) => {
                let since = Duration::from_secs(record.dead_since.unwrap_or_default());
                Place::Dead { forget: now + FORGET_AFTER.saturating_sub(now.saturating_sub(since)) }
            }
            // A clock that was wrong must not keep it for years.
            (false, Some(next)) => {
                let longest = now + longest_backoff();
                Place::Waits { due: Duration::from_secs(next).min(longest), alone: false }
            }
            (false, None) => Place::Waits { due: now, alone: false },
        };
        self.insert(record, place);
    }

    fn insert(&mut self, record: Record, place: Place) {
        let path = record.path.clone();
        self.remove(&path);
        let number = self.next;
        self.next += 1;
        self.items.insert(path.clone(), Item { record, number, place: Place::Kept });
        self.put(&path, place);
    }

    /// Uploaded, forgotten, or never kept.
    pub(super) fn remove(&mut self, path: &StorePath) {
        self.put(path, Place::Kept);
        self.items.remove(path);
    }

    /// The one place where a closure changes its place.
    fn put(&mut self, path: &StorePath, place: Place) {
        let Some(item) = self.items.get_mut(path) else {
            return;
        };
        match item.place {
            Place::Kept => {}
            Place::Waits { due, .. } => drop(self.waiting.remove(&(due, item.number))),
            Place::Sent { .. } => self.sending -= 1,
            Place::Dead { forget } => drop(self.dead.remove(&(forget, item.number))),
        }
        item.place = place;
        match place {
            Place::Kept => {}
            Place::Waits { due, .. } => {
                self.waiting.insert((due, item.number), path.clone());
            }
            Place::Sent { .. } => self.sending += 1,
            Place::Dead { forget } => {
                self.dead.insert((forget, item.number), path.clone());
            }
        }
    }

    /// The next batch: whose turn it is for the longest time, and with it others that are due.
    pub(super) fn take(&mut self, now: Moment) -> Option<Vec<StorePath>> {
        if now < self.paused_until {
            return None;
        }
        let due = self.waiting.range(..=(now, u64::MAX)).map(|(_, path)| path);
        let first = due.clone().next()?;
        let batch: Vec<_> = if self.is_alone(first) {
            vec![first.clone()]
        } else {
            due.filter(|path| !self.is_alone(path)).take(BATCH).cloned().collect()
        };
        for path in &batch {
            let alone = self.is_alone(path);
            self.put(path, Place::Sent { alone });
        }
        Some(batch)
    }

    fn is_alone(&self, path: &StorePath) -> bool {
        self.items.get(path).is_some_and(|item| match item.place {
            Place::Waits { alone, .. } | Place::Sent { alone } => alone,
            Place::Kept | Place::Dead { .. } => false,
        })
    }

    /// The cache took something.
    pub(super) fn uploaded(&mut self, path: &StorePath) {
        self.failures = 0;
        self.remove(path);
    }

    /// The push was cut off: as if it had not begun.
    pub(super) fn put_back(&mut self, batch: &[StorePath], now: Moment) {
        for path in batch {
            let alone = self.is_alone(path);
            self.put(path, Place::Waits { due: now, alone });
        }
    }

    /// The cache refused a batch: whose fault it is, each alone will show.
    pub(super) fn split(&mut self, batch: &[StorePath], now: Moment) {
        for path in batch {
            self.put(path, Place::Waits { due: now, alone: true });
        }
    }

    /// The cache is away, and everything waits; the records that changed. `jitter` is in 0..1.
    pub(super) fn cache_failed(
        &mut self,
        batch: &[StorePath],
        error: &str,
        now: Moment,
        jitter: f64,
    ) -> Vec<Record> {
        self.failures += 1;
        let due = now + backoff(self.failures, jitter);
        self.paused_until = self.paused_until.max(due);
        let due = self.paused_until;
        batch.iter().filter_map(|path| self.failed(path, error, (now, due), false)).collect()
    }

    /// The cache does not want this closure; the others go on.
    pub(super) fn refused(
        &mut self,
        path: &StorePath,
        error: &str,
        now: Moment,
        jitter: f64,
    ) -> Option<Record> {
        // It has answered.
        self.failures = 0;
        let attempts = self.items.get(path)?.record.attempts + 1;
        self.failed(path, error, (now, now + backoff(attempts, jitter)), true)
    }

    fn failed(
        &mut self,
        path: &StorePath,
        error: &str,
        (now, due): (Moment, Moment),
        is_refusal: bool,
    ) -> Option<Record> {
        let alone = self.is_alone(path);
        let most = self.attempts;
        let record = &mut self.items.get_mut(path)?.record;
        record.attempts += 1;
        record.last_error = Some(error.to_owned());
        record.refusals += u32::from(is_refusal);
        // An outage is nobody's fault, and is outlasted.
        let waited = now.saturating_sub(Moment::from_secs(record.queued_at));
        record.dead = record.refusals >= most || waited >= OUTAGE;
        record.dead_since = record.dead.then_some(now.as_secs());
        record.next_attempt = (!record.dead).then_some(due.as_secs());
        let record = record.clone();
        let place = if record.dead {
            Place::Dead { forget: now + FORGET_AFTER }
        } else {
            Place::Waits { due, alone }
        };
        self.put(path, place);
        Some(record)
    }

    /// Somebody says that it works now: these, or all dead ones; the records that changed.
    pub(super) fn retry(&mut self, paths: &[StorePath], now: Moment) -> Vec<Record> {
        let named: Vec<_> =
            if paths.is_empty() { self.dead.values().cloned().collect() } else { paths.to_vec() };
        let retried: Vec<_> = named.iter().filter_map(|path| self.retry_one(path, now)).collect();
        if !retried.is_empty() {
            self.paused_until = Moment::ZERO;
        }
        retried
    }

    fn retry_one(&mut self, path: &StorePath, now: Moment) -> Option<Record> {
        let item = self.items.get_mut(path)?;
        let alone = match item.place {
            Place::Kept | Place::Sent { .. } => return None,
            Place::Waits { alone, .. } => alone,
            Place::Dead { .. } => false,
        };
        let record = &mut item.record;
        (record.attempts, record.refusals, record.next_attempt) = (0, 0, None);
        record.queued_at = now.as_secs();
        (record.dead, record.dead_since) = (false, None);
        let record = record.clone();
        self.put(path, Place::Waits { due: now, alone });
        Some(record)
    }

    /// Takes out those that have been dead for too long.
    pub(super) fn forget(&mut self, now: Moment) -> Vec<StorePath> {
        let old: Vec<_> =
            self.dead.range(..=(now, u64::MAX)).map(|(_, path)| path.clone()).collect();
        for path in &old {
            self.remove(path);
        }
        old
    }

    /// When something is to be done; `sends`: there is a slot for it.
    pub(super) fn next(&self, sends: bool) -> Option<Moment> {
        let waiting = self.waiting.first_key_value().filter(|_| sends);
        let waiting = waiting.map(|((due, _), _)| (*due).max(self.paused_until));
        let dead = self.dead.first_key_value().map(|((forget, _), _)| *forget);
        waiting.into_iter().chain(dead).min()
    }

    pub(super) fn counts(&self) -> Counts {
        let (dead, sending) = (self.dead.len(), self.sending);
        Counts { waiting: self.items.len() - sending - dead, sending, dead }
    }

    /// The closures: dead ones first, then what is sent, then by when it is their turn.
    pub(super) fn all(&self) -> Vec<(&Record, Place)> {
        let mut all: Vec<_> = self.items.values().collect();
        all.sort_by_key(|item| (item.place.rank(), item.number));
        all.into_iter().map(|item| (&item.record, item.place)).collect()
    }

    pub(super) fn paused_until(&self) -> Moment {
        self.paused_until
    }
}

#[cfg(test)]
mod tests;
