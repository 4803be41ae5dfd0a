//! What is to be posted: in order as far as that succeeds, each failure once with a count, not too fast, not for ever. Pure: the
//! time is told.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::actors::metrics;
use crate::k8s::{ApiError, Event, EventName};

/// Events that may wait; of more than that the oldest progress goes first.
const QUEUE: usize = 256;
/// Calls of a node: so many at once, then one for each refill.
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_millis(200);
/// Between two updates of one Event's count.
const UPDATE: Duration = Duration::from_secs(15);
/// How long a failure is remembered as the same, after it was seen last: longer than the kubelet's
/// longest wait between two calls.
const SAME: Duration = Duration::from_secs(600);
/// How long an API server that does not answer is tried.
const PATIENCE: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Tells that two failures of a pod are the same.
pub(super) type Same = (String, String);

#[derive(Debug, Clone)]
struct Post {
    event: Event,
    since: Instant,
    /// Progress is old news soon.
    is_progress: bool,
    same: Option<Same>,
}

/// A failure that happens again and again.
#[derive(Debug)]
struct Series {
    event: Event,
    /// Once it is posted.
    name: Option<EventName>,
    count: i32,
    told: i32,
    told_at: Instant,
    seen_at: Instant,
}

/// The next call.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Post(Event),
    Repeat(EventName, i32),
}

/// What the call under way is about.
#[derive(Debug)]
enum Pending {
    Post(Box<Post>),
    Repeat(Same, i32),
}

#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Post>,
    series: HashMap<Same, Series>,
    pending: Option<Pending>,
    tokens: u32,
    refilled_at: Instant,
    /// The API server does not answer: not before then.
    retry_at: Option<Instant>,
    retry: Duration,
}

fn count(event: &Event, outcome: &str) {
    metrics::EVENTS.with_label_values(&[event.reason, outcome]).inc();
}

impl Outbox {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            series: HashMap::new(),
            pending: None,
            tokens: BURST,
            refilled_at: now,
            retry_at: None,
            retry: RETRY,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn progress(&mut self, event: Event, now: Instant) {
        self.push(Post { event, since: now, is_progress: true, same: None });
    }

    pub(super) fn happened(&mut self, event: Event, now: Instant) {
        self.push(Post { event, since: now, is_progress: false, same: None });
    }

    /// A failure; the same one again only counts.
    pub(super) fn failed(&mut self, event: Event, same: String, now: Instant) {
        let same = (event.pod.uid.clone(), same);
        if let Some(series) = self.series.get_mut(&same) {
            series.count = series.count.saturating_add(1);
            series.seen_at = now;
            return;
        }
        let series = Series {
            event: event.clone(),
            name: None,
            count: 1,
            told: 1,
            told_at: now,
            seen_at: now,
        };
        self.series.insert(same.clone(), series);
        self.push(Post { event, since: now, is_progress: false, same: Some(same) });
    }

    fn push(&mut self, post: Post) {
        if self.queue.len() >= QUEUE {
            let at = self.queue.iter().position(|post| post.is_progress).unwrap_or(0);
            if let Some(dropped) = self.queue.remove(at) {
                self.give_up(&dropped, "dropped");
            }
        }
        self.queue.push_back(post);
    }

    /// A failure that was never posted is news when it happens again.
    fn give_up(&mut self, post: &Post, outcome: &str) {
        count(&post.event, outcome);
        if let Some(same) = &post.same {
            self.series.remove(same);
        }
    }

    /// The next call, if there is one and it may be made now; [`Self::done`] hears of its end.
    pub(super) fn next(&mut self, now: Instant) -> Option<Call> {
        self.forget(now);
        if self.pending.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.refill(now);
        if self.tokens == 0 {
            return None;
        }
        if let Some(post) = self.queue.pop_front() {
            self.tokens -= 1;
            let call = Call::Post(post.event.clone());
            self.pending = Some(Pending::Post(Box::new(post)));
            return Some(call);
        }
        let is_due = |series: &Series| series.count > series.told && now - series.told_at >= UPDATE;
        let (same, series) = self.series.iter().find(|(_, series)| is_due(series))?;
        let (name, count) = (series.name.clone()?, series.count);
        self.tokens -= 1;
        self.pending = Some(Pending::Repeat(same.clone(), count));
        Some(Call::Repeat(name, count))
    }

    pub(super) fn done(&mut self, result: Result<Option<EventName>, ApiError>, now: Instant) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        match result {
            Ok(name) => {
                (self.retry_at, self.retry) = (None, RETRY);
                self.succeeded(pending, name, now);
            }
            Err(ApiError::Down { .. } | ApiError::Conflict { .. }) => {
                self.retry_at = Some(now + self.retry);
                self.retry = (self.retry * 2).min(RETRY_MAX);
                // To the end: what one namespace's admission refuses must not hold up the others.
                if let Pending::Post(post) = pending {
                    self.queue.push_back(*post);
                }
            }
            Err(error) => self.failed_for_good(pending, &error, now),
        }
    }

    fn succeeded(&mut self, pending: Pending, name: Option<EventName>, now: Instant) {
        match pending {
            Pending::Post(post) => {
                count(&post.event, "posted");
                let series = post.same.and_then(|same| self.series.get_mut(&same));
                if let Some(series) = series {
                    (series.name, series.told_at) = (name, now);
                }
            }
            Pending::Repeat(same, told) => {
                if let Some(series) = self.series.get_mut(&same) {
                    count(&series.event, "repeated");
                    (series.told, series.told_at) = (told, now);
                }
            }
        }
    }

    fn failed_for_good(&mut self, pending: Pending, error: &ApiError, now: Instant) {
        match (pending, error) {
            // The Event has expired: the failure is news again.
            (Pending::Repeat(same, _), ApiError::Gone { .. }) => {
                if let Some(Series { event, .. }) = self.series.remove(&same) {
                    self.failed(event, same.1, now);
                }
            }
            (Pending::Repeat(same, told), _) => {
                if let Some(series) = self.series.get_mut(&same) {
                    count(&series.event, "failed");
                    (series.told, series.told_at) = (told, now);
                }
            }
            // Its namespace is being deleted, or we may not.
            (Pending::Post(post), _) => self.give_up(&post, "failed"),
        }
    }

    fn forget(&mut self, now: Instant) {
        self.series.retain(|_, series| now - series.seen_at < SAME);
        let is_old = |post: &Post| now - post.since >= PATIENCE;
        while let Some(at) = self.queue.iter().position(is_old) {
            if let Some(old) = self.queue.remove(at) {
                self.give_up(&old, "dropped");
            }
        }
    }

    fn refill(&mut self, now: Instant) {
        let periods = (now - self.refilled_at).as_millis() / REFILL.as_millis();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            self.tokens = self.tokens.saturating_add(periods).min(BURST);
            self.refilled_at = now;
        }
    }
}

#[cfg(test)]
mod tests;
