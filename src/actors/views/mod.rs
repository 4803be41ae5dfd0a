//! The views actor: one materialised view per closure, shared by all volumes of it.
//!
//! - Owns: which views exist, their GC roots (`<roots>/views/<view id>`), and their eviction.
//! - Hears: [`Acquire`] and [`Adopt`] (from volumes), `Tick`, and the ends of its own effects.
//! - Tells: nobody; a volume holds a [`Lease`] and drops it.
//! - On restart: re-reads the views directory. Leases are counted outside of the actor, so they
//!   outlive it.
//!
//! A view's root exists before its layer is made and until after its last mount is gone.

mod actor;
mod count;
mod effects;
mod evict;
mod handle;
mod lease;
pub(super) mod metrics;

pub use actor::{Acquire, Acquired, Adopt, ListViews, ViewSummary, Views, ViewsConfig};
pub use evict::EvictIdle;
pub use handle::ViewsHandle;
pub use lease::Lease;
