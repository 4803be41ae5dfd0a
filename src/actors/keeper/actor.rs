//! The keeper; see the module above.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, MessageResult, ResponseFuture};
use tokio::time::{Instant, sleep_until};

use super::messages::{Keep, KeepError, ListKept, Release, ReleaseError};
use super::record::{RecordFile, Recorded};
use super::table::{Look, Looked, Table};
use super::{FILE, KeptReport};
use crate::actors::core::{Ctx, Reply, blocking, deferred, impl_supervised, tell};
use crate::actors::metrics;
use crate::actors::reconciler::{Looking, TICK, directory, read_file, watch};
use crate::actors::resolve::Resolver;
use crate::model::{Source, SourceList, Tenant, VolumeId};

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
    config: KeeperConfig,
    record: Arc<RecordFile>,
    table: Table,
    /// What the file named last.
    listed: Option<Vec<Source>>,
    /// What of the file can't be used.
    refused: Vec<String>,
    reading: Looking,
    writing: Looking,
    /// `None`: nobody can tell.
    written: Option<Vec<Recorded>>,
    /// Who waits until it is written down what they keep, until when.
    unwritten: Vec<(u64, Reply<Result<u64, KeepError>>)>,
    /// When the timer goes off.
    armed: Option<Instant>,
}

impl_supervised!(Keeper, "keeper", |this| {
    this.table.clear();
    this.unwritten.clear();
    (this.listed, this.written, this.armed) = (None, None, None);
    (this.reading, this.writing) = (Looking::default(), Looking::default());
});

/// The file may have changed.
#[derive(Message)]
#[rtype(result = "()")]
struct ReadFile;

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

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
            armed: None,
        }
    }

    /// What the file says counts from now on; one that can't be read changes nothing. Whether there is
    /// anything new.
    fn read(&mut self, read: Result<SourceList, String>) -> bool {
        let before = self.listed.clone();
        let refused = match read {
            Ok(SourceList { sources, refused }) => {
                self.listed = Some(sources);
                refused
            }
            Err(why) => vec![why],
        };
        for why in refused.iter().filter(|why| !self.refused.contains(why)) {
            tracing::warn!(kind = FILE, "{why}");
        }
        let count = i64::try_from(refused.len()).unwrap_or(i64::MAX);
        metrics::CONFIG_REFUSED.with_label_values(&[FILE]).set(count);
        self.refused = refused;
        self.listed != before
    }

    fn apply_settings(&mut self, ctx: &mut Ctx<Self>) {
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
                let realised = resolver.resolve(source, volume, Tenant::local()).await;
                realised.map(|resolved| Some(resolved.lease))
            };
            ctx.effect(realised, move |this, realised, ctx| this.ended(number, realised, ctx));
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

    fn read_again(&mut self, ctx: &mut Ctx<Self>) {
        let Some(file) = self.config.file.clone() else {
            return;
        };
        if !self.reading.begin() {
            return;
        }
        ctx.effect(blocking(move || list(&file)), |this, read, ctx| {
            match read {
                Ok(read) => {
                    if this.read(read) {
                        this.apply_settings(ctx);
                    }
                }
                Err(panic) => return ctx.fail(format!("reading the list of sources: {panic}")),
            }
            if this.reading.end() {
                this.read_again(ctx);
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
    Ok(resolver.present(&look.source).await?.map(|present| present.lease))
}

fn list(file: &Path) -> Result<SourceList, String> {
    let told = |why: String| format!("{}: {why}", file.display());
    let text = read_file(file).map_err(&told)?;
    let text = String::from_utf8(text).map_err(|_| told("it is not UTF-8".to_owned()))?;
    let SourceList { sources, refused } = SourceList::parse(&text);
    Ok(SourceList { sources, refused: refused.into_iter().map(told).collect() })
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
        let Some(file) = &self.config.file else {
            return;
        };
        tell(&ctx.address(), Tick);
        let address = ctx.address();
        let watched = watch([directory(file)].into(), move || tell(&address, ReadFile));
        ctx.effect(watched, |_, error, _| {
            tracing::warn!(%error, "file events are not heard; a look each {TICK:?} remains");
        });
    }
}

impl Handler<ReadFile> for Keeper {
    type Result = ();

    fn handle(&mut self, _: ReadFile, ctx: &mut Ctx<Self>) {
        self.read_again(ctx);
    }
}

impl Handler<Tick> for Keeper {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Ctx<Self>) {
        self.read_again(ctx);
        ctx.effect(tokio::time::sleep(TICK), |_, (), ctx| tell(&ctx.address(), Tick));
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
