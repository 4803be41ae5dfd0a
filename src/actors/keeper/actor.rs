//! The keeper; see the module above.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, MessageResult, ResponseFuture};
use tokio::time::{Instant, sleep_until};

use super::KeptReport;
use super::file::list;
use super::messages::{Keep, KeepError, ListKept, Release, ReleaseError, Settled};
use super::record::{RecordFile, Recorded};
use super::table::{Look, Looked, Table};
use crate::actors::core::{ActorGone, Ctx, Reply, answer_all, blocking, deferred, impl_supervised};
use crate::actors::metrics;
use crate::actors::reconciler::Looking;
use crate::actors::resolve::Resolver;
use crate::model::{Source, Viewer, VolumeId};
use crate::trace;

#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// What the node's settings name.
    pub sources: Vec<Source>,
    /// The file that names more, one a line. It is followed.
    pub file: Option<PathBuf>,
    /// Where it is written down what is kept.
    pub record: PathBuf,
    /// How often it is looked at whether a closure is still there, and what a mutable reference names.
    pub refresh: Duration,
}

pub struct Keeper {
    resolver: Resolver,
    pub(super) config: KeeperConfig,
    record: Arc<RecordFile>,
    table: Table,
    /// What the file named last.
    pub(super) listed: Option<Vec<Source>>,
    /// What of the file can't be used.
    pub(super) refused: Vec<String>,
    pub(super) reading: Looking,
    writing: Looking,
    /// `None`: nobody can tell.
    written: Option<Vec<Recorded>>,
    /// Who waits until it is written down what they keep, until when.
    unwritten: Vec<(u64, Reply<Result<u64, KeepError>>)>,
    /// Who waits until what was kept is held.
    settling: Vec<Reply<Result<(), ActorGone>>>,
    /// When the timer goes off.
    armed: Option<Instant>,
}

impl_supervised!(Keeper, "keeper", |this| {
    this.table.clear();
    this.unwritten.clear();
    this.settling.clear();
    (this.listed, this.written, this.armed) = (None, None, None);
    (this.reading, this.writing) = (Looking::default(), Looking::default());
});

impl Keeper {
    pub fn new(resolver: Resolver, config: KeeperConfig) -> Self {
        Self {
            resolver,
            record: Arc::new(RecordFile::new(config.record.clone())),
            config,
            table: Table::default(),
            listed: None,
            refused: Vec::new(),
            reading: Looking::default(),
            writing: Looking::default(),
            written: None,
            unwritten: Vec::new(),
            settling: Vec::new(),
            armed: None,
        }
    }

    pub(super) fn apply_settings(&mut self, ctx: &mut Ctx<Self>) {
        let more = match (&self.config.file, &self.listed) {
            (None, _) => Vec::new(),
            (Some(_), Some(listed)) => listed.clone(),
            // What it named when it could be read, maybe in an earlier process.
            (Some(_), None) => self.table.settings(),
        };
        let sources = [self.config.sources.clone(), more].concat();
        let deserted = self.table.settings_are(&sources, Instant::now());
        self.let_go(deserted, ctx);
    }

    fn let_go(&mut self, deserted: Vec<VolumeId>, ctx: &mut Ctx<Self>) {
        for volume in deserted {
            self.resolver.abandon(volume);
        }
        self.write(ctx);
        self.go_on(ctx);
    }

    /// Starts what is due, and sets the timer for what is next.
    fn go_on(&mut self, ctx: &mut Ctx<Self>) {
        let now = Instant::now();
        if let Some(deserted) = self.table.expire(now) {
            return self.let_go(deserted, ctx); // and from there here again, once
        }
        for look in self.table.begin_due(now) {
            let number = look.number;
            let looked = find(self.resolver.clone(), look);
            ctx.effect(looked, move |this, looked, ctx| this.ended(number, looked, ctx));
        }
        if let Some((number, volume, source)) = self.table.begin_realising() {
            let resolver = self.resolver.clone();
            let realised = async move {
                // As what a person mounts: the settings are the operator's.
                let span = tracing::debug_span!(parent: None, "prefetch", ?source, %volume);
                let resolved = resolver.resolve(source, volume, Viewer::local());
                let realised = trace::phase(span, resolved).await;
                realised.map(|resolved| Some(resolved.lease))
            };
            ctx.effect(realised, move |this, realised, ctx| this.ended(number, realised, ctx));
        }
        if self.table.is_settled() {
            answer_all(std::mem::take(&mut self.settling), &Ok(()));
        }
        self.arm(ctx);
        metrics::show_kept(|state| self.table.count(state));
    }

    fn ended(&mut self, number: u64, looked: Looked, ctx: &mut Ctx<Self>) {
        if let Err(error) = &looked {
            metrics::KEEP_FAILURES.with_label_values(&[error.kind()]).inc();
        }
        if self.table.ended(number, looked, self.config.refresh, Instant::now()) {
            self.write(ctx);
        }
        self.go_on(ctx);
    }

    fn arm(&mut self, ctx: &mut Ctx<Self>) {
        let Some(next) = self.table.next() else {
            return;
        };
        if self.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        self.armed = Some(next);
        ctx.effect(sleep_until(next), move |this, (), ctx| {
            // A later timer may have been replaced by an earlier one.
            if this.armed == Some(next) {
                this.armed = None;
            }
            this.go_on(ctx);
        });
    }

    /// Writes down what is kept. What can't be written costs the next process warmth.
    fn write(&mut self, ctx: &mut Ctx<Self>) {
        let kept = self.table.recorded();
        let is_written = self.unwritten.is_empty() && self.written.as_ref() == Some(&kept);
        if is_written || !self.writing.begin() {
            return;
        }
        self.written = Some(kept.clone());
        let (record, waiting) = (self.record.clone(), std::mem::take(&mut self.unwritten));
        ctx.effect(blocking(move || record.save(kept)), |this, written, ctx| {
            let written = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
            let written = written.map_err(|error| KeepError::NotWritten {
                path: this.record.path().to_owned(),
                reason: error.to_string(),
            });
            if let Err(error) = &written {
                tracing::warn!(%error, "the next process will know less of what is kept");
                this.written = None;
            }
            for (until, waiter) in waiting {
                waiter.send(written.clone().map(|()| until));
            }
            if this.writing.end() {
                this.write(ctx);
            }
        });
    }
}

/// Needs no Nix. `None`: it is not known, or not there.
async fn find(resolver: Resolver, look: Look) -> Looked {
    if let Some(root) = look.root
        && let Some(lease) = resolver.acquire(&root).await?
    {
        resolver.builds.memory.recall(&look.source, root);
        return Ok(Some(lease));
    }
    Ok(resolver.present(&look.source, &Viewer::local()).await?.map(|present| present.lease))
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

impl Actor for Keeper {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        let (record, file) = (self.record.clone(), self.config.file.clone());
        let load = blocking(move || (record.load(), file.map(|file| list(&file))));
        // The mailbox waits: nobody keeps anything before it is known what is kept.
        ctx.wait(actix::fut::wrap_future::<_, Self>(load).map(|loaded, this, ctx| match loaded {
            Ok((recorded, read)) => {
                this.table.restore(recorded, Instant::now(), wall_clock());
                this.written = Some(this.table.recorded());
                if let Some(read) = read {
                    this.read(read);
                }
                this.apply_settings(ctx);
            }
            Err(panic) => ctx.fail(format!("reading what is kept: {panic}")),
        }));
        self.follow(ctx);
    }
}

impl Handler<Keep> for Keeper {
    type Result = ResponseFuture<Result<u64, KeepError>>;

    fn handle(
        &mut self,
        Keep { source, resolved, keep }: Keep,
        ctx: &mut Ctx<Self>,
    ) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        let (wall, now) = (wall_clock() + keep.as_secs(), Instant::now());
        self.table.keep(&source, resolved.lease, (wall, now + keep), now);
        self.unwritten.push((wall, reply));
        self.write(ctx);
        self.go_on(ctx);
        answer
    }
}

impl Handler<Settled> for Keeper {
    type Result = ResponseFuture<Result<(), ActorGone>>;

    fn handle(&mut self, _: Settled, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        self.settling.push(reply);
        self.go_on(ctx);
        answer
    }
}

impl Handler<Release> for Keeper {
    type Result = Result<(), ReleaseError>;

    fn handle(&mut self, Release(text): Release, ctx: &mut Ctx<Self>) -> Self::Result {
        let deserted = self.table.release(&text)?;
        self.let_go(deserted, ctx);
        Ok(())
    }
}

impl Handler<ListKept> for Keeper {
    type Result = MessageResult<ListKept>;

    fn handle(&mut self, _: ListKept, _: &mut Ctx<Self>) -> Self::Result {
        let kept = self.table.kept(Instant::now());
        MessageResult(KeptReport { kept, refused: self.refused.clone() })
    }
}
