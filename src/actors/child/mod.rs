//! A supervised child process: `nix-daemon`.
//!
//! - Owns: the process, from its start to its orderly end, and its word in the health.
//! - Hears: [`Stop`], and the end of the process.
//! - Tells: nobody; readiness shows in the health, its log lines in ours.
//! - On restart: ends what an earlier incarnation, or an earlier driver, left; starts anew.

use std::time::Duration;

use actix::{Actor, ActorContext, Handler, Message, ResponseFuture};
use tokio_util::sync::CancellationToken;

use super::core::{ActorGone, Ctx, Reply, deferred, impl_supervised};
use super::metrics;
use crate::health::{Condition, Health};
use crate::nix::{DaemonSpec, NixError, RunningDaemon};

/// For the process to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Ends the process and the actor; answered when the process is gone.
#[derive(Message)]
#[rtype(result = "Result<(), ActorGone>")]
pub struct Stop;

pub struct ChildProcess {
    spec: DaemonSpec,
    health: Health,
    part: &'static str,
    stop: CancellationToken,
    stopping: Vec<Reply<Result<(), ActorGone>>>,
}

impl_supervised!(ChildProcess, "child", |_this| ());

/// How one life of the process ended.
enum End {
    Stopped,
    Exited(String),
}

impl ChildProcess {
    pub fn new(spec: DaemonSpec, part: &'static str, health: Health) -> Self {
        let stop = CancellationToken::new();
        metrics::CHILD_EXITS.with_label_values(&[part]);
        Self { spec, health, part, stop, stopping: Vec::new() }
    }
}

async fn live(
    spec: DaemonSpec,
    part: &'static str,
    health: Health,
    stop: CancellationToken,
) -> Result<End, NixError> {
    let mut process = spec.start().await?;
    let ready = tokio::select! {
        ready = spec.ready() => ready,
        exit = process.exited() => return Ok(End::Exited(format!("{exit} while it started"))),
        () = stop.cancelled() => return Ok(stopped(process).await),
    };
    ready?;
    health.set(part, &Condition::Ready);
    tokio::select! {
        exit = process.exited() => Ok(End::Exited(exit)),
        () = stop.cancelled() => Ok(stopped(process).await),
    }
}

async fn stopped(process: RunningDaemon) -> End {
    process.stop(GRACE).await;
    End::Stopped
}

impl Actor for ChildProcess {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let life = live(self.spec.clone(), self.part, self.health.clone(), self.stop.clone());
        ctx.effect(life, |this, end, ctx| {
            let reason = match end {
                Ok(End::Stopped) => {
                    for reply in this.stopping.drain(..) {
                        reply.send(Ok(()));
                    }
                    return ctx.stop();
                }
                Ok(End::Exited(reason)) => format!("{} {reason}", this.part),
                Err(error) => error.to_string(),
            };
            metrics::CHILD_EXITS.with_label_values(&[this.part]).inc();
            this.health.set(this.part, &Condition::Sick(reason.clone()));
            ctx.fail(reason);
        });
    }
}

impl Handler<Stop> for ChildProcess {
    type Result = ResponseFuture<Result<(), ActorGone>>;

    fn handle(&mut self, _: Stop, _: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        self.stopping.push(reply);
        self.stop.cancel();
        answer
    }
}
