//! A supervised child process: `nix-daemon` or `sshd`.
//!
//! - Owns: the process, from its start to its orderly end, and its word in the health.
//! - Hears: [`Stop`], [`Renew`], and the end of the process.
//! - Tells: nobody; readiness shows in the health, its log lines in ours. What it depends on must be
//!   ready first, in the health as well.
//! - On restart: ends what an earlier incarnation, or an earlier driver, left; starts anew. Retired
//!   processes go on.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Handler, Message, ResponseFuture};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::{ActorGone, Ctx, Reply, deferred, impl_supervised};
use super::metrics;
use crate::health::{Condition, Health};
use crate::nix::{ChildSpec, NixError, RunningChild};

/// For the process to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Until another process is tried again that did not start.
const AGAIN: Duration = Duration::from_secs(10);

/// Ends the process and the actor; answered when the process is gone.
#[derive(Message)]
#[rtype(result = "Result<(), ActorGone>")]
pub struct Stop;

/// Another process in place of this one, for a configuration that has changed. What this one has started
/// goes on: see [`RunningChild::retire`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Renew;

/// What one life of the process needs.
#[derive(Clone)]
struct Life {
    spec: ChildSpec,
    health: Health,
    part: &'static str,
    /// Parts that must be ready first.
    after: &'static [&'static str],
    /// The process is sick without it.
    is_vital: bool,
    stop: CancellationToken,
    renew: Arc<Notify>,
    retired: TaskTracker,
}

pub struct ChildProcess {
    life: Life,
    stopping: Vec<Reply<Result<(), ActorGone>>>,
}

impl_supervised!(ChildProcess, "child", |_this| ());

/// How one life of the process ended.
enum End {
    Stopped,
    Exited(String),
}

impl ChildProcess {
    /// A child that is `part` of the health, and starts when the parts in `after` are ready.
    pub fn new(
        spec: ChildSpec,
        part: &'static str,
        after: &'static [&'static str],
        health: Health,
    ) -> Self {
        metrics::CHILD_EXITS.with_label_values(&[part]);
        let life = Life {
            spec,
            health,
            part,
            after,
            is_vital: true,
            stop: CancellationToken::new(),
            renew: Arc::default(),
            retired: TaskTracker::new(),
        };
        Self { life, stopping: Vec::new() }
    }

    /// One without which the process is not sick, but impaired.
    pub fn optional(mut self) -> Self {
        self.life.is_vital = false;
        self
    }
}

impl Life {
    async fn live(self) -> Result<End, NixError> {
        let up = metrics::CHILD_UP.with_label_values(&[self.part]);
        up.set(0);
        for part in self.after {
            tokio::select! {
                () = self.health.until_ready(part) => {}
                () = self.stop.cancelled() => return Ok(End::Stopped),
            }
        }
        let mut process = self.spec.start().await?;
        let end = loop {
            match self.serve(&mut process).await? {
                Some(end) => break end,
                None => self.succeed(&mut process).await,
            }
        };
        up.set(0);
        if matches!(end, End::Stopped) {
            process.stop(GRACE).await;
            self.retired.close();
            self.retired.wait().await;
        }
        Ok(end)
    }

    /// Until it has ended, or must; `None`: there is to be another one.
    async fn serve(&self, process: &mut RunningChild) -> Result<Option<End>, NixError> {
        let ready = tokio::select! {
            ready = self.spec.ready() => ready,
            exit = process.exited() => {
                return Ok(Some(End::Exited(format!("{exit} while it started"))));
            }
            () = self.stop.cancelled() => return Ok(Some(End::Stopped)),
        };
        ready?;
        metrics::CHILD_UP.with_label_values(&[self.part]).set(1);
        self.health.set(self.part, &Condition::Ready);
        Ok(tokio::select! {
            exit = process.exited() => Some(End::Exited(exit)),
            () = self.stop.cancelled() => Some(End::Stopped),
            () = self.renew.notified() => None,
        })
    }

    async fn succeed(&self, process: &mut RunningChild) {
        let child = self.part;
        match self.spec.start_beside().await {
            Ok(next) => {
                let old = std::mem::replace(process, next);
                old.retire();
                tracing::info!(child, "started anew; what the last one does goes on");
                metrics::CHILD_RENEWALS.with_label_values(&[child]).inc();
                self.retired.spawn(retired(child, old, self.stop.clone()));
            }
            Err(error) => {
                tracing::error!(child, %error, "it stays as it is for now: no other one starts");
                let (renew, stop) = (self.renew.clone(), self.stop.clone());
                self.retired.spawn(async move {
                    let waited = tokio::time::timeout(AGAIN, stop.cancelled()).await;
                    if waited.is_err() {
                        renew.notify_one();
                    }
                });
            }
        }
    }
}

async fn retired(child: &'static str, mut old: RunningChild, stop: CancellationToken) {
    let count = metrics::CHILDREN_RETIRED.with_label_values(&[child]);
    count.inc();
    if count.get() > 1 {
        tracing::warn!(child, retired = count.get(), "several former ones still have clients");
    }
    tokio::select! {
        _ = old.exited() => tracing::info!(child, "the last one has done what it had begun"),
        () = stop.cancelled() => old.stop(GRACE).await,
    }
    count.dec();
}

impl Actor for ChildProcess {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.effect(self.life.clone().live(), |this, end, ctx| {
            let Life { part, health, is_vital, .. } = &this.life;
            let reason = match end {
                Ok(End::Stopped) => {
                    for reply in this.stopping.drain(..) {
                        reply.send(Ok(()));
                    }
                    return ctx.stop();
                }
                Ok(End::Exited(reason)) => format!("{part} {reason}"),
                Err(error) => error.to_string(),
            };
            metrics::CHILD_EXITS.with_label_values(&[part]).inc();
            let condition = if *is_vital { Condition::Sick } else { Condition::Impaired };
            health.set(part, &condition(reason.clone()));
            ctx.fail(reason);
        });
    }
}

impl Handler<Stop> for ChildProcess {
    type Result = ResponseFuture<Result<(), ActorGone>>;

    fn handle(&mut self, _: Stop, _: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        self.stopping.push(reply);
        self.life.stop.cancel();
        answer
    }
}

impl Handler<Renew> for ChildProcess {
    type Result = ();

    fn handle(&mut self, _: Renew, _: &mut Ctx<Self>) {
        self.life.renew.notify_one();
    }
}
