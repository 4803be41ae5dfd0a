//! Supervision: one way to start an actor, and what happens when it ends.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use actix::dev::{AsyncContextParts, ContextFut};
use actix::{Actor, Addr};

use super::{Backoff, Ctx, metrics};

/// An actor that may be restarted. Implement it with [`impl_supervised!`].
///
/// Never override `Actor::stopping` or `stopped`: they run on the torn state after a panic.
pub trait Supervised: Actor<Context = Ctx<Self>> + actix::Supervised {
    /// The kind, as metrics and logs name it.
    const KIND: &'static str;

    /// Forgets everything in memory. `Actor::started` runs next, as on the first start, and
    /// re-reads what is true from disk and kernel.
    fn forget(&mut self);
}

/// Gives an actor its context and wires `forget` to the restart.
macro_rules! impl_supervised {
    ($actor:ty, $kind:literal, |$this:ident| $forget:expr) => {
        impl actix::Supervised for $actor {
            fn restarting(&mut self, _: &mut Self::Context) {
                $crate::actors::core::Supervised::forget(self);
            }
        }
        impl $crate::actors::core::Supervised for $actor {
            const KIND: &'static str = $kind;
            fn forget(&mut self) {
                let $this = self;
                $forget
            }
        }
    };
}
pub(crate) use impl_supervised;

/// Why an actor is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It stopped itself, or nobody holds its address any more.
    Done,
    /// It failed or panicked more often than its backoff allows.
    GaveUp { reason: String },
}

/// Why one incarnation ended.
enum Stop {
    Done,
    Failed(String),
    Panicked(String),
}

/// Starts `actor` on this thread's local set and keeps it running. `on_end` is called once.
/// A restart keeps the address and the queued mail; only a message that was being handled is
/// lost, and its asker is told.
pub fn supervise<A: Supervised>(
    actor: A,
    backoff: Backoff,
    on_end: impl FnOnce(End) + 'static,
) -> Addr<A> {
    // Boxed, since a future keeps room for each place that a value is moved to.
    let running = Box::new(Ctx::start(actor));
    let address = running.address();
    actix_rt::spawn(async move {
        let alive = metrics::of_actor(A::KIND).alive.clone();
        alive.inc();
        let end = run(running, backoff).await;
        alive.dec();
        on_end(end);
    });
    address
}

async fn run<A: Supervised>(mut running: Box<ContextFut<A, Ctx<A>>>, mut backoff: Backoff) -> End {
    loop {
        let (kind, reason) = match one_life(&mut running).await {
            Stop::Done => return End::Done,
            Stop::Failed(reason) => ("failed", reason),
            Stop::Panicked(reason) => ("panicked", reason),
        };
        metrics::restarted(A::KIND, kind);
        // Dropping a live ContextFut polls it once more, on the torn state.
        running.ctx().parts().terminate();
        let Some(delay) = backoff.next_delay() else {
            tracing::error!(actor = A::KIND, kind, %reason, "actor gave up");
            return End::GaveUp { reason };
        };
        tracing::warn!(actor = A::KIND, kind, %reason, ?delay, "actor restarts");
        tokio::time::sleep(delay).await;
        // `forget` is the actor's own code, and may panic as well.
        match catch_unwind(AssertUnwindSafe(|| running.restart())) {
            Ok(true) => {}
            Ok(false) => return End::Done, // nobody holds the address any more
            Err(panic) => return End::GaveUp { reason: message_of(panic.as_ref()) },
        }
    }
}

async fn one_life<A: Supervised>(running: &mut ContextFut<A, Ctx<A>>) -> Stop {
    poll_fn(|task| {
        // The state may be torn after a panic; `forget` replaces it before it is used again.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *running).poll(task))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                Poll::Ready(running.ctx().take_failure().map_or(Stop::Done, Stop::Failed))
            }
            Err(panic) => Poll::Ready(Stop::Panicked(message_of(panic.as_ref()))),
        }
    })
    .await
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
