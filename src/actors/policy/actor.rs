//! The actor; see the module above.

use std::path::PathBuf;
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Handler};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::handle::{Known, PolicyHandle, PolicyReport};
use super::last_good::{load, save, text_in};
use super::{KEY, KIND, PART};
use crate::actors::core::{Backoff, Ctx, blocking, impl_supervised, supervise};
use crate::actors::metrics;
use crate::actors::reconciler::{self, Look, Looking, TICK, directory};
use crate::health::{Condition, Health};
use crate::k8s::{Api, Change, ConfigData};
use crate::model::Policy;

/// Where the policy is written.
#[derive(Clone)]
pub enum PolicySource {
    File(PathBuf),
    ConfigMap { namespace: String, name: String, api: Arc<dyn Api> },
}

#[derive(Clone)]
pub struct PolicyConfig {
    pub source: PolicySource,
    /// Without one nobody may ask for anything.
    pub required: bool,
    /// Where the last good one is kept.
    pub last_good: PathBuf,
    pub health: Health,
}

pub struct Policies {
    config: PolicyConfig,
    report: watch::Sender<PolicyReport>,
    reading: Looking,
    saving: Looking,
    /// The last good one, if it is not on disk.
    unsaved: Option<String>,
    /// There has been one, and it can't be read: that there is none now says nothing.
    unreadable: Option<String>,
}

/// Without it what counted last counts on; the supervisor says so.
pub(in crate::actors) fn start(
    config: Option<PolicyConfig>,
    backoff: Backoff,
) -> (Option<Addr<Policies>>, PolicyHandle) {
    let Some(config) = config else {
        return (None, PolicyHandle::open());
    };
    let (policies, handle) = Policies::new(config);
    (Some(supervise(policies, backoff, |_| {})), handle)
}

/// What the source has: `Ok(None)` is nothing.
type Found = Result<Option<String>, String>;

// What counted counts until the source answers.
impl_supervised!(Policies, "policy", |this| {
    (this.reading, this.saving) = (Looking::default(), Looking::default());
});

impl Policies {
    pub fn new(config: PolicyConfig) -> (Self, PolicyHandle) {
        let reason = format!("{} was not read yet", config.source);
        let report = PolicyReport { known: Known::Awaited { reason }, ..PolicyReport::default() };
        let (report, handle) = watch::channel(report);
        let (reading, saving) = (Looking::default(), Looking::default());
        let this = Self { config, report, reading, saving, unsaved: None, unreadable: None };
        (this, PolicyHandle::new(handle))
    }

    fn awaits(&self) -> bool {
        matches!(self.report.borrow().known, Known::Awaited { .. })
    }

    /// Before its source was asked.
    fn recall(&mut self, loaded: Result<Option<(String, Policy)>, String>) {
        match loaded {
            Ok(Some((text, policy))) if self.awaits() => {
                let known = Known::Policy(Arc::new(policy));
                let origin = format!("{}, as it was last", self.config.source);
                self.report.send_replace(PolicyReport { known, text, origin, refused: None });
            }
            Ok(_) => {}
            Err(reason) => {
                self.refuse(reason.clone());
                self.unreadable = Some(reason);
            }
        }
    }

    fn found(&mut self, found: Found, ctx: &mut Ctx<Self>) {
        let parsed = found.and_then(|text| {
            let Some(text) = text else { return Ok(None) };
            let policy = Policy::parse(&text).map_err(|error| error.to_string())?;
            Ok(Some((text, policy)))
        });
        match parsed {
            Ok(Some((text, policy))) => self.learn(text, policy, ctx),
            Ok(None) => self.lose(),
            Err(reason) => self.refuse(format!("{}: {reason}", self.config.source)),
        }
    }

    fn learn(&mut self, text: String, policy: Policy, ctx: &mut Ctx<Self>) {
        let origin = self.config.source.to_string();
        if self.report.borrow().text != text {
            tracing::info!(source = origin, "the policy has changed: it counts from now on");
            metrics::CONFIG_WRITES.with_label_values(&[KIND]).inc();
            self.unsaved = Some(text.clone());
        }
        self.unreadable = None;
        let known = Known::Policy(Arc::new(policy));
        self.report.send_replace(PolicyReport { known, text, origin, refused: None });
        self.say(None);
        self.save(ctx);
    }

    /// One after the other, so that the last one stays.
    fn save(&mut self, ctx: &mut Ctx<Self>) {
        let Some(text) = self.unsaved.clone() else { return };
        if !self.saving.begin() {
            return;
        }
        let file = self.config.last_good.clone();
        ctx.effect(blocking(move || (save(&file, &text), text)), |this, saved, ctx| {
            match saved {
                Ok((Ok(()), text)) if this.unsaved.as_ref() == Some(&text) => this.unsaved = None,
                Ok((Ok(()), _)) => {}
                Ok((Err(error), _)) => Self::cant_save(&error, ctx),
                Err(panic) => Self::cant_save(&panic.to_string(), ctx),
            }
            if this.saving.end() {
                this.save(ctx);
            }
        });
    }

    fn cant_save(error: &str, ctx: &mut Ctx<Self>) {
        tracing::warn!(error, "the next process won't know the policy at once; it is tried again");
        ctx.effect(sleep(TICK), |this: &mut Self, (), ctx| this.save(ctx));
    }

    /// There is none where one could be.
    fn lose(&self) {
        let source = &self.config.source;
        let open = "to allow everything, write `preset: open` there";
        if let Some(unreadable) = &self.unreadable {
            return self.refuse(format!("{source} is gone, and {unreadable}: {open}"));
        }
        if matches!(self.report.borrow().known, Known::Policy(_)) {
            return self.refuse(format!("{source} is gone; the last good policy counts: {open}"));
        }
        if self.config.required {
            return self.refuse(format!("there is no {source}, and --policy-required: {open}"));
        }
        if self.awaits() {
            tracing::info!("there is no {source}: pods may ask for everything");
        }
        self.report.send_replace(PolicyReport::default());
        self.say(None);
    }

    /// What is there can't be used, or can't be known.
    fn refuse(&self, reason: String) {
        if self.report.borrow().refused.as_ref() != Some(&reason) {
            let counts =
                if self.awaits() { "nobody may mount" } else { "the last good one counts" };
            tracing::error!("what the policy says now is not known; {counts}: {reason}");
        }
        self.report.send_modify(|report| {
            if let Known::Awaited { reason: awaited } = &mut report.known {
                awaited.clone_from(&reason);
            }
            report.refused = Some(reason.clone());
        });
        self.say(Some(reason));
    }

    fn say(&self, refused: Option<String>) {
        metrics::CONFIG_REFUSED.with_label_values(&[KIND]).set(refused.is_some().into());
        let condition = refused.map_or(Condition::Ready, Condition::Impaired);
        self.config.health.set(PART, &condition);
    }

    /// One change after the other.
    fn follow(mut changes: BoxStream<'static, Change<ConfigData>>, ctx: &mut Ctx<Self>) {
        let next = async move {
            let change = changes.next().await;
            (change, changes)
        };
        ctx.effect(next, |this: &mut Self, (change, changes), ctx| {
            match change {
                Some(Change::Reset(all)) => this.found(text_of(all.into_iter().next()), ctx),
                Some(Change::Applied(one)) => this.found(text_of(Some(one)), ctx),
                Some(Change::Deleted(_)) => this.found(Ok(None), ctx),
                Some(Change::Lost(reason)) => {
                    metrics::WATCHES_LOST.inc();
                    this.refuse(format!("the watch of {} broke: {reason}", this.config.source));
                }
                None => return ctx.fail("the watch of the policy ended"),
            }
            Self::follow(changes, ctx);
        });
    }

    fn read(&mut self, ctx: &mut Ctx<Self>) {
        let PolicySource::File(file) = &self.config.source else { return };
        if !self.reading.begin() {
            return;
        }
        let file = file.clone();
        let read = blocking(move || text_in(&file));
        ctx.effect(read, |this, found, ctx| {
            this.found(found.unwrap_or_else(|panic| Err(panic.to_string())), ctx);
            if this.reading.end() {
                this.read(ctx);
            }
        });
    }

    fn begin(&mut self, ctx: &mut Ctx<Self>) {
        match &self.config.source {
            PolicySource::ConfigMap { namespace, name, api } => {
                Self::follow(api.watch_config_map(namespace, name), ctx);
            }
            PolicySource::File(file) => reconciler::follow([directory(file)].into(), ctx),
        }
    }
}

fn text_of(data: Option<ConfigData>) -> Found {
    let Some(mut data) = data else { return Ok(None) };
    data.remove(KEY).map(Some).ok_or_else(|| format!("it has no key {KEY}"))
}

impl Actor for Policies {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        let file = self.config.last_good.clone();
        let load = blocking(move || load(&file));
        ctx.wait(actix::fut::wrap_future::<_, Self>(load).map(|loaded, this, ctx| {
            this.recall(loaded.unwrap_or_else(|panic| Err(panic.to_string())));
            this.begin(ctx);
        }));
    }
}

impl Handler<Look> for Policies {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Ctx<Self>) {
        self.read(ctx);
    }
}

impl std::fmt::Display for PolicySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::ConfigMap { namespace, name, .. } => write!(f, "ConfigMap {namespace}/{name}"),
        }
    }
}
