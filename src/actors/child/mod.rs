//! A supervised child process: `nix-daemon` or `sshd`.
//!
//! - Owns: the process, from its start to its orderly end, and its word in the health.
//! - Hears: [`Stop`], and the end of the process.
//! - Tells: nobody; readiness shows in the health, its log lines in ours. What it depends on must be
//!   ready first, in the health as well.
//! - On restart: ends what an earlier incarnation, or an earlier driver, left; starts anew.

use std::time::Duration;

use actix::{Actor, ActorContext, Handler, Message, ResponseFuture};
use tokio_util::sync::CancellationToken;

use super::core::{ActorGone, Ctx, Reply, deferred, impl_supervised};
use super::metrics;
use crate::health::{Condition, Health};
use crate::nix::{ChildSpec, NixError, RunningChild};

/// For the process to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Ends the process and the actor; answered when the process is gone.
#[derive(Message)]
#[rtype(result = "Result<(), ActorGone>")]
pub struct Stop;

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
        let stop = CancellationToken::new();
        metrics::CHILD_EXITS.with_label_values(&[part]);
        Self {
            life: Life { spec, health, part, after, is_vital: true, stop },
            stopping: Vec::new(),
        }
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
        let ready = tokio::select! {
            ready = self.spec.ready() => ready,
            exit = process.exited() => return Ok(End::Exited(format!("{exit} while it started"))),
            () = self.stop.cancelled() => return Ok(stopped(process).await),
        };
        if let Err(error) = ready {
            process.stop(GRACE).await;
            return Err(error);
        }
        up.set(1);
        self.health.set(self.part, &Condition::Ready);
        let end = tokio::select! {
            exit = process.exited() => End::Exited(exit),
            () = self.stop.cancelled() => stopped(process).await,
        };
        up.set(0);
        Ok(end)
    }
}

async fn stopped(process: RunningChild) -> End {
    process.stop(GRACE).await;
    End::Stopped
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
