//! Looks after builders: one that does not answer is the registry's to leave out.
//!
//! - Owns: nothing.
//! - Hears: its own tick.
//! - Tells: the registry which builders answered, in one message, so that it writes once.
//! - On restart: begins anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Handler, Message};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};

use super::{BuilderState, RegistryHandle};
use crate::actors::core::{Backoff, Ctx, End, impl_supervised, supervise, tell};
use crate::model::{Address, Announcement};

/// Three of them in a row are the bench, which is less than Nix's own patience with a dead host.
const INTERVAL: Duration = Duration::from_secs(15);
/// Probes at once: a dead machine holds one for all of its time, and must not hold up the others for
/// long. Each is a file, and with a name a thread too.
const AT_ONCE: usize = 128;

/// What a builder says of itself; `None`: it does not answer.
pub type Probe = Arc<dyn Fn(Address) -> BoxFuture<'static, Option<Announcement>> + Send + Sync>;

pub struct BuilderProbe {
    registry: RegistryHandle,
    probe: Probe,
}

impl_supervised!(BuilderProbe, "builder-probe", |_this| ());

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

impl BuilderProbe {
    /// It ends when nobody holds its address.
    pub fn start(
        registry: RegistryHandle,
        probe: Probe,
        backoff: Backoff,
        on_end: impl FnOnce(End) + 'static,
    ) -> Addr<Self> {
        supervise(Self { registry, probe }, backoff, on_end)
    }
}

impl Actor for BuilderProbe {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        tell(&ctx.address(), Tick);
    }
}

/// One on the bench is asked as well: its return begins with an answer.
async fn look(registry: RegistryHandle, probe: Probe) {
    let worth = |state| matches!(state, BuilderState::Ready | BuilderState::Benched);
    let all = registry.list().await.into_iter().filter(|b| worth(b.state));
    // Two pods may share one.
    let addresses: HashSet<_> = all.filter_map(|builder| builder.address).collect();
    let asked = addresses.into_iter().map(|address| {
        let answer = probe(address.clone());
        async move { (address, answer.await) }
    });
    registry.asked(stream::iter(asked).buffer_unordered(AT_ONCE).collect().await);
}

impl Handler<Tick> for BuilderProbe {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Ctx<Self>) {
        let round = look(self.registry.clone(), self.probe.clone());
        ctx.effect(round, |this, (), ctx| {
            let registry = this.registry.clone();
            let next = async move {
                let _ = tokio::time::timeout(INTERVAL, registry.news()).await;
            };
            ctx.effect(next, |_, (), ctx| tell(&ctx.address(), Tick));
        });
    }
}
