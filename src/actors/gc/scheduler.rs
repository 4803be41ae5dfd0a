//! The actor: when a collection begins, and what is said of it.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, Message, MessageResult};
use tokio::time::{Instant, sleep, timeout};

use super::collect::{Beat, Collector};
use super::config::GcConfig;
use super::holders::Holders;
use super::messages::{Full, GcStatus, GetGcStatus, Meet};
use super::metrics;
use super::report::{CollectError, Report};
use super::stocks::Stocks;
use super::threads::Threads;
use crate::actors::core::{Ctx, blocking, impl_supervised, jitter, tell};
use crate::health::Condition;
use crate::nix::Space;

/// A step's own limit ends it; what is still there so long after it hangs.
const STALL: Duration = Duration::from_secs(30);
/// Looks between two collections that free too little, or that builds have asked for.
const PAUSE: u32 = 3;

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// Why a collection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Interval,
    Pressure,
    Full,
}

pub struct GcScheduler {
    config: GcConfig,
    holders: Option<Holders>,
    /// The parts that it waits for are ready.
    may_begin: bool,
    running: Option<Beat>,
    due: Instant,
    /// Not before this, for want of space.
    relieve_from: Instant,
    full: bool,
    last: Option<(Instant, String)>,
    error: Option<String>,
    /// What was said of other drivers' roots.
    others: BTreeMap<String, usize>,
    threads: Threads,
    stocks: Stocks,
}

impl_supervised!(GcScheduler, "gc", |this| {
    (this.running, this.full) = (None, false);
    this.due = Instant::now();
});

impl GcScheduler {
    pub fn new(config: GcConfig) -> Self {
        let now = Instant::now();
        Self {
            config,
            holders: None,
            may_begin: false,
            running: None,
            due: now,
            relieve_from: now,
            full: false,
            last: None,
            error: None,
            others: BTreeMap::new(),
            threads: Threads::default(),
            stocks: Stocks::default(),
        }
    }

    /// Looks how full the disk is, and begins what is due.
    fn look(&mut self, ctx: &mut Ctx<Self>) {
        if self.running.is_none()
            && let Err(error) = self.threads.none_hangs(self.config.rules.step)
        {
            self.cant_look(&error);
            return self.look_later(ctx);
        }
        self.stocks.count(&self.config.store, ctx);
        let (store, used) = (self.config.store.clone(), self.config.used.clone());
        let at_work = self.threads.begin("asking for the space");
        let look = move || {
            let _at_work = at_work;
            used.flush();
            store.space()
        };
        let space = timeout(self.config.rules.step, blocking(look));
        ctx.effect(space, |this, space, ctx| {
            let space = match space {
                Ok(Ok(Ok(space))) => Some(space),
                Ok(Ok(Err(error))) => this.cant_look(&error),
                Ok(Err(panic)) => this.cant_look(&panic),
                Err(_) => this.cant_look(&"it takes too long"),
            };
            if let Some(space) = &space {
                metrics::show_space(space, this.config.rules.watermarks);
            }
            if this.running.is_none()
                && let Some(why) = this.is_due(space.as_ref())
            {
                this.begin(why, ctx);
            }
            this.look_later(ctx);
        });
    }

    fn look_later(&self, ctx: &mut Ctx<Self>) {
        ctx.effect(sleep(self.config.look), |_, (), ctx| tell(&ctx.address(), Tick));
    }

    fn cant_look(&self, error: &dyn std::fmt::Display) -> Option<Space> {
        let text = format!("can't tell how full the store's file system is: {error}");
        tracing::warn!("{text}");
        self.say(&Condition::Impaired(text));
        None
    }

    fn is_due(&self, space: Option<&Space>) -> Option<Why> {
        let now = Instant::now();
        let marks = self.config.rules.watermarks;
        let presses = space.zip(marks).is_some_and(|(space, marks)| !marks.begin(space).is_met());
        if now >= self.due {
            Some(Why::Interval)
        } else if now < self.relieve_from {
            None
        } else if self.full {
            Some(Why::Full)
        } else if presses {
            Some(Why::Pressure)
        } else {
            None
        }
    }

    fn begin(&mut self, why: Why, ctx: &mut Ctx<Self>) {
        let Some(holders) = self.holders.clone().filter(|_| self.may_begin) else {
            return;
        };
        let (beat, began) = (Beat::default(), Instant::now());
        self.running = Some(beat.clone());
        tracing::debug!(?why, "a collection begins");
        let GcConfig { store, used, rules, roots, .. } = &self.config;
        let (store, used, roots) = (store.clone(), used.clone(), roots.clone());
        let (rules, threads, wanted) = (*rules, self.threads.clone(), self.full);
        let collector = Collector { store, used, holders, rules, roots, wanted, threads };
        let span = tracing::debug_span!(parent: None, "collect garbage", ?why);
        let collecting = crate::trace::phase(span.clone(), collector.collect(beat));
        ctx.effect(collecting, move |this, result, _| {
            this.running = None;
            metrics::SECONDS.observe(began.elapsed().as_secs_f64());
            this.due = Instant::now() + this.config.interval.mul_f64(0.9 + jitter() / 5.0);
            span.in_scope(|| this.ended(result));
        });
    }

    fn ended(&mut self, result: Result<Option<Report>, CollectError>) {
        let now = Instant::now();
        let outcome = match result {
            Ok(None) => {
                tracing::info!("another collector of this store is at work");
                "busy"
            }
            Ok(Some(report)) => {
                self.succeeded(&report, now);
                "ok"
            }
            Err(error) => {
                let text = error.to_string();
                tracing::error!(error = text, "a collection failed");
                self.say(&Condition::Impaired(format!("the last collection failed: {text}")));
                self.error = Some(text);
                self.relieve_from = now + PAUSE * self.config.look;
                "failed"
            }
        };
        metrics::CYCLES.with_label_values(&[outcome]).inc();
    }

    fn succeeded(&mut self, report: &Report, now: Instant) {
        if std::mem::take(&mut self.full) {
            self.relieve_from = now + PAUSE * self.config.look;
        }
        if report.others != self.others {
            for (dir, roots) in &report.others {
                tracing::warn!(
                    dir,
                    roots,
                    "roots of another node's are kept; if there is none, remove them"
                );
            }
            self.others.clone_from(&report.others);
        }
        metrics::show(report);
        let text = report.to_string();
        if report.deleted + report.views + report.remains + report.stuck.len() > 0 {
            tracing::info!("garbage collected: {text}");
        } else {
            tracing::debug!("garbage collected: {text}");
        }
        (self.last, self.error) = (Some((now, text)), None);
        if !report.left.is_met() {
            self.relieve_from = now + PAUSE * self.config.look;
        }
        if let Some(text) = report.too_full() {
            tracing::warn!("{text}");
            self.say(&Condition::Impaired(text));
        } else if let Some((path, error)) = report.stuck.first() {
            self.say(&Condition::Impaired(format!("{path} can't be deleted: {error}")));
        } else {
            self.say(&Condition::Ready);
        }
    }

    fn say(&self, condition: &Condition) {
        self.config.health.set(self.config.part, condition);
    }

    /// Whether the collection under way has ended its restart.
    fn is_stalled(&self, ctx: &mut Ctx<Self>) -> bool {
        let Some((step, time)) = self.running.as_ref().map(Beat::last) else {
            return false;
        };
        if time < self.config.rules.step + STALL {
            return false;
        }
        let time = humantime::format_duration(Duration::from_secs(time.as_secs()));
        let reason = format!("{step} has hung for {time}");
        self.say(&Condition::Impaired(reason.clone()));
        metrics::CYCLES.with_label_values(&["stalled"]).inc();
        ctx.fail(reason);
        true
    }
}

impl Actor for GcScheduler {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        let (health, after) = (self.config.health.clone(), self.config.after);
        let ready = async move {
            for part in after {
                health.until_ready(part).await;
            }
        };
        ctx.effect(ready, |this, (), ctx| {
            this.may_begin = true;
            tell(&ctx.address(), Tick);
        });
    }
}

impl Handler<Meet> for GcScheduler {
    type Result = ();

    fn handle(&mut self, Meet(holders): Meet, _: &mut Ctx<Self>) {
        self.holders = Some(holders);
    }
}

impl Handler<Full> for GcScheduler {
    type Result = ();

    fn handle(&mut self, _: Full, ctx: &mut Ctx<Self>) {
        self.full = self.config.rules.watermarks.is_some();
        if self.full && self.running.is_none() && Instant::now() >= self.relieve_from {
            self.begin(Why::Full, ctx);
        }
    }
}

impl Handler<GetGcStatus> for GcScheduler {
    type Result = MessageResult<GetGcStatus>;

    fn handle(&mut self, _: GetGcStatus, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(GcStatus {
            step: self.running.as_ref().map(Beat::last),
            last: self.last.as_ref().map(|(at, text)| (at.elapsed(), text.clone())),
            error: self.error.clone(),
        })
    }
}

impl Handler<Tick> for GcScheduler {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Ctx<Self>) {
        if !self.is_stalled(ctx) {
            self.look(ctx);
        }
    }
}
