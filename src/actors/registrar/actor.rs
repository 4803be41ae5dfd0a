//! The registrar actor; see the module above.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Handler, Message, ResponseFuture};
use tokio::time::{Instant, sleep};

use super::metrics::{REGISTERED, REGISTRATIONS};
use super::plan::{Plan, Step};
use super::{Door, Doorway, Notice};
use crate::actors::core::{ActorGone, Backoff, Ctx, ask, deferred, impl_supervised, tell};
use crate::health::{Condition, Health};
use crate::k8s::{Api, ApiError};

/// Between looks at the socket.
const TICK: Duration = Duration::from_millis(200);
/// Between questions to the API server.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Tries to remove the startup taint: without end, since pods wait for it.
const TAINT: Backoff = Backoff::new(
    Duration::from_secs(1),
    Duration::from_secs(60),
    Duration::from_secs(600),
    u32::MAX,
);

pub struct RegistrarConfig {
    /// This part's name in the health; it is ready while the driver is registered.
    pub part: &'static str,
    pub health: Health,
    pub doorway: Arc<dyn Doorway>,
    /// To look whether the kubelet still lists the driver.
    pub api: Option<Arc<dyn Api>>,
    /// The key of the startup taint, if it is to be removed.
    pub taint: Option<String>,
}

/// What the kubelet has said through the socket of this opening.
#[derive(Message)]
#[rtype(result = "()")]
struct Heard {
    opening: u64,
    notice: Notice,
}

/// Takes the socket away and ends.
#[derive(Message)]
#[rtype(result = "Result<(), ActorGone>")]
struct Stop;

pub struct KubeletRegistrar {
    config: RegistrarConfig,
    plan: Plan,
    door: Option<Box<dyn Door>>,
    /// Numbers the openings: a word from an earlier one's kubelet call says nothing about this one.
    opening: u64,
    is_opening: bool,
    asked_at: Instant,
    is_listed: Option<bool>,
    taint: Backoff,
    is_untainting: bool,
}

impl_supervised!(KubeletRegistrar, "registrar", |this| {
    this.shut();
    this.plan = Plan::new(Instant::now());
    (this.is_opening, this.is_untainting, this.is_listed) = (false, false, None);
    this.opening += 1;
});

impl KubeletRegistrar {
    pub fn new(config: RegistrarConfig) -> Self {
        let now = Instant::now();
        REGISTERED.set(0);
        Self {
            config,
            plan: Plan::new(now),
            door: None,
            opening: 0,
            is_opening: false,
            asked_at: now,
            is_listed: None,
            taint: TAINT,
            is_untainting: false,
        }
    }

    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        // First when everything else can serve: the kubelet's first question is NodeGetInfo, and
        // pods come right after.
        let waits = self.door.is_none() && !self.config.health.is_ready_but_for(self.config.part);
        if !waits && !self.is_opening {
            let is_there = self.door.as_ref().is_some_and(|door| door.is_there());
            let step = self.plan.tick(Instant::now(), is_there, self.is_listed.take());
            self.take(step, ctx);
            self.ask_api(ctx);
        }
        ctx.effect(sleep(TICK), |this, (), ctx| this.tick(ctx));
    }

    fn take(&mut self, step: Step, ctx: &mut Ctx<Self>) {
        match step {
            Step::Nothing => {}
            Step::Open => self.open(ctx),
            Step::Close { why } => {
                tracing::warn!(why, "the registration socket is opened anew");
                REGISTRATIONS.with_label_values(&["lost"]).inc();
                self.shut();
                self.config.health.set(self.config.part, &Condition::Starting);
            }
        }
    }

    fn shut(&mut self) {
        self.door = None;
        REGISTERED.set(0);
    }

    fn open(&mut self, ctx: &mut Ctx<Self>) {
        self.opening += 1;
        self.is_opening = true;
        let (me, opening) = (ctx.address(), self.opening);
        let hear = Box::new(move |notice| tell(&me, Heard { opening, notice }));
        ctx.effect(self.config.doorway.open(hear), |this, opened, _| {
            this.is_opening = false;
            match opened {
                Ok(door) => {
                    this.door = Some(door);
                    // It may have been heard through it already.
                    if !this.plan.is_registered() {
                        this.plan.opened(Instant::now());
                    }
                }
                Err(error) => {
                    tracing::error!(error, "can't offer the driver to the kubelet");
                    this.plan.open_failed(Instant::now());
                }
            }
        });
    }

    fn ask_api(&mut self, ctx: &mut Ctx<Self>) {
        let Some(api) = self.config.api.clone() else {
            return;
        };
        if !self.plan.is_registered() || self.asked_at.elapsed() < ASK_EVERY {
            return;
        }
        self.asked_at = Instant::now();
        ctx.effect(api.is_driver_listed(), |this, listed, _| match listed {
            Ok(listed) => this.is_listed = Some(listed),
            Err(error @ ApiError::Down { .. }) => {
                tracing::debug!(%error, "can't look whether the kubelet lists the driver");
            }
            Err(error) => tracing::warn!(%error, "can't look whether the kubelet lists the driver"),
        });
    }

    fn remove_taint(&mut self, ctx: &mut Ctx<Self>) {
        let (Some(api), Some(key)) = (self.config.api.clone(), self.config.taint.clone()) else {
            return;
        };
        if std::mem::replace(&mut self.is_untainting, true) {
            return;
        }
        ctx.effect(api.remove_taint(&key), move |this, removed, ctx| {
            let error = match removed {
                Ok(was_there) => {
                    this.is_untainting = false;
                    this.taint = TAINT;
                    tracing::info!(key, was_there, "the startup taint is gone");
                    return;
                }
                Err(error) => error,
            };
            tracing::warn!(key, %error, "the startup taint stays for now");
            let wait = this.taint.next_delay().unwrap_or(ASK_EVERY);
            ctx.effect(sleep(wait), |this, (), ctx| {
                this.is_untainting = false;
                this.remove_taint(ctx);
            });
        });
    }
}

/// The actor as the application holds it.
pub struct RegistrarHandle(pub(crate) Addr<KubeletRegistrar>);

impl RegistrarHandle {
    /// The kubelet forgets the driver, and mounts nothing more with it.
    pub async fn stop(self) {
        let _ = ask(&self.0, Stop).await; // gone is as good as stopped
    }
}

impl Actor for KubeletRegistrar {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.config.health.set(self.config.part, &Condition::Starting);
        self.tick(ctx);
    }
}

impl Handler<Heard> for KubeletRegistrar {
    type Result = ();

    fn handle(&mut self, Heard { opening, notice }: Heard, ctx: &mut Ctx<Self>) {
        if opening != self.opening {
            return;
        }
        tracing::info!(?notice, "the kubelet says");
        let step = self.plan.heard(&notice, Instant::now());
        match notice {
            Notice::Asked => {}
            Notice::Registered => {
                REGISTRATIONS.with_label_values(&["registered"]).inc();
                REGISTERED.set(1);
                self.asked_at = Instant::now();
                self.config.health.set(self.config.part, &Condition::Ready);
                self.remove_taint(ctx);
            }
            Notice::Refused(_) => REGISTRATIONS.with_label_values(&["refused"]).inc(),
        }
        self.take(step, ctx);
    }
}

impl Handler<Stop> for KubeletRegistrar {
    type Result = ResponseFuture<Result<(), ActorGone>>;

    fn handle(&mut self, _: Stop, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        self.shut();
        reply.send(Ok(()));
        ctx.stop();
        answer
    }
}
