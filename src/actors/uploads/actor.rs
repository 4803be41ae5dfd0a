//! The uploader; see the module above.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use actix::{Actor, Handler, MessageResult, ResponseFuture};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::UploadsReport;
use super::disk::{Disk, DiskError, Files, Found};
use super::messages::{ListUploads, RetryUploads, Stop};
use super::metrics;
use super::queue::Queue;
use super::record::{Moment, Record, Unreadable};
use super::sent::Sent;
use crate::actors::core::{ActorGone, Ctx, Reply, answer_all, deferred, impl_supervised};
use crate::actors::gc::holders::SweepRoots;
use crate::actors::gc::report::Leaked;
use crate::actors::gc::used::Used;
use crate::model::StorePath;
use crate::nix::{Nix, PushTo};

pub struct UploadsConfig {
    pub to: PushTo,
    /// What closures were built from goes, too.
    pub derivations: bool,
    /// Directory of the records.
    pub records: PathBuf,
    /// Directory of the GC roots, below the store's `gcroots`.
    pub roots: PathBuf,
    /// How often a closure is tried before it is given up.
    pub attempts: u32,
    /// Pushes at once.
    pub slots: usize,
    pub used: Used,
}

/// The wall clock of the start and the time since: one that is set does not change what is due.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    start: Moment,
    began: Instant,
}

impl Clock {
    fn new() -> Self {
        let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start, began: Instant::now() }
    }

    pub(super) fn now(self) -> Moment {
        self.start + self.began.elapsed()
    }
}

pub struct CacheUploader {
    pub(super) nix: Arc<dyn Nix>,
    pub(super) to: PushTo,
    pub(super) derivations: bool,
    attempts: u32,
    slots: usize,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) used: Used,
    pub(super) queue: Queue,
    unreadable: Vec<Unreadable>,
    pub(super) sent: Sent,
    /// Pushes under way.
    pub(super) pushing: usize,
    /// Nothing is sent before the records are read.
    is_loaded: bool,
    /// When the timer goes off.
    armed: Option<Moment>,
    stopping: bool,
    /// Ends pushes under way.
    pub(super) cut_off: CancellationToken,
    stopped: Vec<Reply<Result<(), ActorGone>>>,
}

impl_supervised!(CacheUploader, "uploads", |this| {
    this.queue = Queue::new(this.attempts);
    this.unreadable.clear();
    (this.pushing, this.is_loaded, this.armed) = (0, false, None);
    this.stopped.clear();
});

impl CacheUploader {
    pub fn new(nix: Arc<dyn Nix>, config: UploadsConfig) -> Self {
        metrics::show_last_upload("none");
        let UploadsConfig { to, derivations, records, roots, attempts, slots, used } = config;
        Self {
            disk: Disk::new(Files { nix: nix.clone(), records, roots }),
            nix,
            to,
            derivations,
            used,
            attempts,
            slots,
            clock: Clock::new(),
            queue: Queue::new(attempts),
            unreadable: Vec::new(),
            sent: Sent::default(),
            pushing: 0,
            is_loaded: false,
            armed: None,
            stopping: false,
            cut_off: CancellationToken::new(),
            stopped: Vec::new(),
        }
    }

    fn load(&mut self, ctx: &mut Ctx<Self>) {
        ctx.effect(self.disk.ask(Files::load), |this, found, ctx| match found {
            Err(error) => ctx.fail(error.to_string()),
            Ok(Found { records, unreadable }) => {
                let now = this.clock.now();
                for record in records {
                    this.queue.restore(record, now);
                }
                this.unreadable = unreadable;
                this.is_loaded = true;
                this.go_on(ctx);
            }
        });
    }

    /// Starts what is due, and sets the timer for what is next.
    pub(super) fn go_on(&mut self, ctx: &mut Ctx<Self>) {
        if !self.is_loaded {
            return;
        }
        let now = self.clock.now();
        let forgotten = self.queue.forget(now);
        for path in &forgotten {
            tracing::warn!(%path, "an upload that was given up is forgotten");
        }
        self.remove(forgotten, "forgotten", ctx);
        while self.has_slot()
            && let Some(batch) = self.queue.take(now)
        {
            self.push(batch, ctx);
        }
        self.arm(now, ctx);
        let counts = self.queue.counts();
        metrics::show_uploads(counts.waiting, counts.sending, counts.dead);
    }

    pub(super) fn end_if_stopped(&mut self) {
        if self.pushing == 0 {
            answer_all(self.stopped.drain(..), &Ok(()));
        }
    }

    fn has_slot(&self) -> bool {
        !self.stopping && self.pushing < self.slots
    }

    fn arm(&mut self, now: Moment, ctx: &mut Ctx<Self>) {
        let Some(next) = self.queue.next(self.has_slot()) else {
            return;
        };
        if self.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        self.armed = Some(next);
        ctx.effect(sleep(next.saturating_sub(now)), move |this, (), ctx| {
            // A later timer may have been replaced by an earlier one.
            if this.armed == Some(next) {
                this.armed = None;
            }
            this.go_on(ctx);
        });
    }

    pub(super) fn save(&mut self, changed: Vec<Record>, ctx: &mut Ctx<Self>) {
        let saved = self.disk.ask(move |files| changed.iter().try_for_each(|r| files.save(r)));
        ctx.effect(saved, |_, saved, _| say(saved));
    }

    pub(super) fn remove(&mut self, paths: Vec<StorePath>, outcome: &str, ctx: &mut Ctx<Self>) {
        if paths.is_empty() {
            return;
        }
        metrics::UPLOADS.with_label_values(&[outcome]).inc_by(paths.len() as u64);
        for path in &paths {
            self.used.note(path);
        }
        let removed = self.disk.ask(move |files| paths.iter().try_for_each(|p| files.remove(p)));
        ctx.effect(removed, |_, removed, _| say(removed));
    }
}

/// The queue goes on with what it knows; the next start uploads something again.
fn say(done: Result<(), DiskError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "the upload queue's files are behind");
    }
}

impl Actor for CacheUploader {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.load(ctx);
    }
}

impl Handler<ListUploads> for CacheUploader {
    type Result = MessageResult<ListUploads>;

    fn handle(&mut self, _: ListUploads, _: &mut Ctx<Self>) -> Self::Result {
        let (to, unreadable) = (self.to.to_string(), self.unreadable.clone());
        MessageResult(UploadsReport::new(&self.queue, to, unreadable, self.clock.now()))
    }
}

impl Handler<RetryUploads> for CacheUploader {
    type Result = usize;

    fn handle(&mut self, RetryUploads(paths): RetryUploads, ctx: &mut Ctx<Self>) -> usize {
        let changed = self.queue.retry(&paths, self.clock.now());
        let retried = changed.len();
        self.save(changed, ctx);
        self.go_on(ctx);
        retried
    }
}

impl Handler<SweepRoots> for CacheUploader {
    type Result = ResponseFuture<Result<Vec<Leaked>, ActorGone>>;

    fn handle(&mut self, _: SweepRoots, _: &mut Ctx<Self>) -> Self::Result {
        let swept = self.disk.ask(Files::sweep);
        Box::pin(async move {
            Ok(swept.await.unwrap_or_else(|error| {
                tracing::warn!(%error, "can't look for leaked roots of uploads");
                Vec::new()
            }))
        })
    }
}

impl Handler<Stop> for CacheUploader {
    type Result = ResponseFuture<Result<(), ActorGone>>;

    fn handle(&mut self, Stop(grace): Stop, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        self.stopping = true;
        self.stopped.push(reply);
        self.end_if_stopped();
        ctx.effect(sleep(grace), |this, (), _| {
            this.cut_off.cancel();
            answer_all(this.stopped.drain(..), &Ok(()));
        });
        answer
    }
}
