//! The registry actor; see the module above.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Handler};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::debounce::Debounce;
use super::file::MachinesFile;
use super::metrics;
use super::plan::{Builder, BuilderState, BuilderStatus, plan};
use super::{BuildersAsked, ListBuilders, RegistryConfig};
use crate::actors::core::{Ctx, impl_supervised};
use crate::k8s::{BuilderChange, BuilderPod, Builders};

/// Between tries after a failed write.
const TICK: Duration = Duration::from_secs(5);
/// For new builders to answer.
const ANSWERS: Duration = Duration::from_secs(10);

pub struct BuilderRegistry {
    config: RegistryConfig,
    source: Arc<dyn Builders>,
    file: MachinesFile,
    /// By the pod's uid: a pod of the same name is another builder, with a bench of its own.
    builders: HashMap<String, Builder>,
    /// Whether `builders` has been whole once. Until then the file says more than we know.
    is_listed: bool,
    /// What the file has; `None`: nobody knows, or there is none.
    written: Option<String>,
    debounce: Debounce,
    work: Work,
    has_said_that_names_lack: bool,
    /// There are builders that nobody has asked yet.
    news: Arc<Notify>,
    /// Since when the file waits for their answers.
    held_since: Option<Instant>,
}

/// What is done about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Done,
    Writing {
        /// Something changed since.
        is_outdated: bool,
    },
    Failed,
}

impl_supervised!(BuilderRegistry, "builder-registry", |this| {
    this.builders.clear();
    this.debounce.done();
    this.written = None;
    (this.is_listed, this.work, this.held_since) = (false, Work::Done, None);
});

impl BuilderRegistry {
    pub fn new(config: RegistryConfig, source: Arc<dyn Builders>) -> Self {
        metrics::show_all();
        Self {
            source,
            file: MachinesFile::new(&config.machines),
            builders: HashMap::new(),
            is_listed: false,
            written: None,
            debounce: Debounce::new(config.debounce),
            work: Work::Done,
            has_said_that_names_lack: false,
            news: Arc::default(),
            held_since: None,
            config,
        }
    }

    /// One change after the other: the next is asked for when this one is known.
    fn follow(mut changes: BoxStream<'static, BuilderChange>, ctx: &mut Ctx<Self>) {
        let next = async move {
            let change = changes.next().await;
            (change, changes)
        };
        ctx.effect(next, |this: &mut Self, (change, changes), ctx| {
            let Some(change) = change else {
                return ctx.fail("the watch of the builders' pods ended");
            };
            if this.learn(change) {
                this.changed(ctx);
            }
            Self::follow(changes, ctx);
        });
    }

    /// Whether anything is other than before.
    fn learn(&mut self, change: BuilderChange) -> bool {
        match change {
            BuilderChange::Reset(pods) => {
                let before = std::mem::take(&mut self.builders);
                for pod in pods {
                    let known = before.get(&pod.uid);
                    let (uid, builder) = self.read(pod, known);
                    self.builders.insert(uid, builder);
                }
                !std::mem::replace(&mut self.is_listed, true) || before != self.builders
            }
            BuilderChange::Applied(pod) => {
                let before = self.builders.remove(&pod.uid);
                let (uid, builder) = self.read(pod, before.as_ref());
                let is_other = before.as_ref() != Some(&builder);
                self.builders.insert(uid, builder);
                is_other
            }
            BuilderChange::Deleted(pod) => self.builders.remove(&pod.uid).is_some(),
            // Builders are more likely there than not: a cache that forgets them builds all by itself.
            BuilderChange::Lost(reason) => {
                metrics::REGISTRY_WATCHES_LOST.inc();
                tracing::warn!(reason, "the watch of the builders' pods broke");
                false
            }
        }
    }

    /// A pod as a builder; what is wrong with it is said once, as long as it stays the same.
    fn read(&mut self, pod: BuilderPod, before: Option<&Builder>) -> (String, Builder) {
        let uid = pod.uid.clone();
        let builder = Builder::of(pod, &self.config, before);
        if let Some(error) = builder.complaint(before) {
            let (pod, namespace) = (&builder.name, &builder.namespace);
            tracing::warn!(pod, namespace, %error, "a builder is left out");
        }
        if builder.lacks_name && !std::mem::replace(&mut self.has_said_that_names_lack, true) {
            tracing::warn!(
                pod = builder.name,
                "builders are to be reached by their names, but this pod has no hostname and \
                 subdomain that make one: it, and others like it, are reached by their addresses"
            );
        }
        (uid, builder)
    }

    /// Looks at the file when all is quiet.
    fn changed(&mut self, ctx: &mut Ctx<Self>) {
        if self.debounce.changed(Instant::now()) {
            self.wait_for_quiet(ctx);
        }
    }

    fn wait_for_quiet(&mut self, ctx: &mut Ctx<Self>) {
        let Some(due) = self.debounce.due() else {
            return;
        };
        ctx.effect(sleep_until(due), |this, (), ctx| {
            if this.debounce.due().is_some_and(|due| Instant::now() < due) {
                return this.wait_for_quiet(ctx);
            }
            this.debounce.done();
            this.settle(ctx);
        });
    }

    /// Makes the file what it is to be.
    fn settle(&mut self, ctx: &mut Ctx<Self>) {
        if !self.is_listed {
            return;
        }
        let plan = plan(self.builders.values(), &self.config);
        for (state, count) in BuilderState::ALL.iter().zip(plan.counts) {
            metrics::BUILDERS.with_label_values(&[state.as_str()]).set(count);
        }
        metrics::show_slots(plan.slots());
        if self.config.asks_first && self.waits_for_answers(ctx) {
            return;
        }
        if let Work::Writing { is_outdated } = &mut self.work {
            *is_outdated = true;
            return;
        }
        let text = plan.text();
        if self.written.as_ref() == Some(&text) {
            self.work = Work::Done;
            return;
        }
        self.work = Work::Writing { is_outdated: false };
        let (machines, write) = (plan.machines.len(), self.file.clone().write(text.clone()));
        ctx.effect(write, move |this, done, ctx| {
            if let Err(error) = done {
                tracing::error!(%error, "the builders are as they were; tried again soon");
                this.work = Work::Failed;
                return;
            }
            let is_outdated = this.work == Work::Writing { is_outdated: true };
            this.work = Work::Done;
            metrics::REGISTRY_WRITES.inc();
            tracing::info!(machines, "the machines file is written");
            this.written = Some(text);
            if is_outdated {
                this.changed(ctx);
            }
        });
    }

    /// A builder says itself what it can do, so that one that is new is asked before it is written down. One
    /// that does not answer holds the others up for a while only.
    fn waits_for_answers(&mut self, ctx: &mut Ctx<Self>) -> bool {
        if !self.builders.values().any(Builder::is_unasked) {
            self.held_since = None;
            return false;
        }
        self.news.notify_one();
        match self.held_since {
            Some(since) if since.elapsed() >= ANSWERS => {
                self.held_since = None;
                return false;
            }
            Some(_) => {}
            None => {
                self.held_since = Some(Instant::now());
                ctx.effect(sleep(ANSWERS), |this, (), ctx| {
                    if this.held_since.is_some() {
                        this.settle(ctx);
                    }
                });
            }
        }
        true
    }

    pub(super) fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    fn tick(ctx: &mut Ctx<Self>) {
        ctx.effect(sleep(TICK), |this: &mut Self, (), ctx| {
            if this.work == Work::Failed {
                this.settle(ctx);
            }
            Self::tick(ctx);
        });
    }
}

impl Actor for BuilderRegistry {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        ctx.effect(self.file.clone().read(), |this, read, ctx| {
            match read {
                Ok(text) => this.written = text,
                // It is replaced as soon as the builders are known.
                Err(error) => tracing::warn!(%error, "the builders of before are not known"),
            }
            Self::follow(this.source.watch_builders(), ctx);
        });
        Self::tick(ctx);
    }
}

impl Handler<BuildersAsked> for BuilderRegistry {
    type Result = ();

    fn handle(&mut self, BuildersAsked(answers): BuildersAsked, ctx: &mut Ctx<Self>) {
        let mut is_other = false;
        for builder in self.builders.values_mut() {
            let Some(address) = &builder.address else { continue };
            let Some(answer) = answers.get(address) else { continue };
            let answered = answer.is_some();
            is_other |= builder.answered(answer.as_ref(), &self.config);
            let Some(address) = &builder.address else { continue };
            if !builder.bench.asked(answered) {
                continue;
            }
            is_other = true;
            let pod = &builder.name;
            if answered {
                tracing::info!(pod, %address, "a builder answers again");
            } else {
                tracing::warn!(pod, %address, "a builder does not answer: left out until it does");
            }
        }
        if is_other {
            self.changed(ctx);
        }
    }
}

impl Handler<ListBuilders> for BuilderRegistry {
    type Result = Vec<BuilderStatus>;

    fn handle(&mut self, _: ListBuilders, _: &mut Ctx<Self>) -> Self::Result {
        let mut all: Vec<BuilderStatus> = self.builders.values().map(Builder::status).collect();
        all.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
        all
    }
}
