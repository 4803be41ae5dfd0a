//! The actor framework: actix with the parts that it leaves out. No other room starts an actor.
//!
//! - [`Ctx`]: an actor's context. It measures every message (time queued, time handled, depth)
//!   and carries the sender's tracing span, without a line in any handler.
//! - [`supervise`]: runs an actor until it is done; a failure or a panic restarts it on the same
//!   address with its queued mail, after a backoff, until it gives up.
//! - [`ask`], [`tell`]: sending. Both say when the other side is gone.
//! - [`deferred`]: a reply that is given later, by whatever event ends the work.
//! - [`blocking`]: work that blocks, for an effect to wait for.
//! - [`jitter`]: spreads tries that would come at once.
//! - [`Admission`]: a limit at the edge on how many callers may wait.
//!
//! To add an actor: a struct that implements [`Supervised`] (its kind, what it forgets on a
//! restart), `actix::Actor` with `type Context = Ctx<Self>` (re-reads its state in `started`), and a
//! `Handler` per message. Start it with [`supervise`]. Its metrics exist from then on.

mod admission;
mod ask;
mod backoff;
mod blocking;
mod context;
mod envelope;
mod metrics;
mod supervise;

#[cfg(test)]
mod tests;

pub use admission::{Admission, Overloaded, Share, Shares};
pub use ask::{ActorGone, Reply, answer_all, ask, deferred, tell};
pub use backoff::{Backoff, jitter};
pub use blocking::blocking;
pub use context::Ctx;
pub(super) use metrics::register_metrics;
pub(crate) use supervise::impl_supervised;
pub use supervise::{End, Supervised, supervise};
