//! One realisation.

use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, Handler, Message};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::actor::Ended;
use super::{Builds, Built, RootGuard};
use crate::actors::core::{Ctx, impl_supervised, tell};
use crate::actors::metrics;
use crate::model::Source;
use crate::nix::{Nix, NixError, ProgressSink, RealiseError};

/// Everything one realisation needs.
pub(super) struct BuildActor {
    pub(super) number: u64,
    pub(super) source: Source,
    pub(super) nix: Arc<dyn Nix>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) root: Arc<RootGuard>,
    pub(super) progress: ProgressSink,
    pub(super) builds: Addr<Builds>,
}

impl_supervised!(BuildActor, "build", |_this| ());

/// Nobody waits any more: dropping the effect ends the child process.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Cancel;

impl Actor for BuildActor {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let effect = realise(
            self.nix.clone(),
            self.slots.clone(),
            self.source.clone(),
            self.root.clone(),
            self.progress.clone(),
        );
        ctx.effect(effect, |this, result, ctx| {
            tell(&this.builds, Ended { number: this.number, result: result.map_err(Arc::new) });
            ctx.stop();
        });
    }
}

async fn realise(
    nix: Arc<dyn Nix>,
    slots: Arc<Semaphore>,
    source: Source,
    root: Arc<RootGuard>,
    progress: ProgressSink,
) -> Result<Built, RealiseError> {
    let queued = gauge("queued");
    progress.update(|p| "waiting for a build slot".clone_into(&mut p.current));
    // The semaphore is never closed; without a permit the work would merely be unbounded.
    let _slot = slots.acquire().await.ok();
    drop(queued);
    let _running = gauge("running");
    progress.update(|p| "evaluating".clone_into(&mut p.current));
    let began = Instant::now();
    let key = source.key();
    // Not on the actors' thread, which would read every line that a builder prints.
    let work = nix.realise(source, root.path().to_owned(), progress);
    let task = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
    let result = task.await.unwrap_or_else(|panic| {
        let detail = panic.to_string();
        Err(NixError::Command { what: "the realisation".to_owned(), detail }.into())
    });
    let outcome = result.as_ref().map_or_else(RealiseError::kind, |_| "ok");
    metrics::REALISE_SECONDS
        .with_label_values(&[key, outcome])
        .observe(began.elapsed().as_secs_f64());
    result.map(|realised| Built { realised, root })
}

/// Counts in `nixcsi_builds` while it lives.
fn gauge(state: &str) -> impl Drop + use<> {
    struct Counted(prometheus::IntGauge);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.dec();
        }
    }
    let gauge = metrics::BUILDS.with_label_values(&[state]);
    gauge.inc();
    Counted(gauge)
}

impl Handler<Cancel> for BuildActor {
    type Result = ();

    fn handle(&mut self, _: Cancel, ctx: &mut Ctx<Self>) {
        tracing::info!(source = ?self.source, "realisation cancelled: nobody waits for it");
        ctx.stop();
    }
}
