//! The builds actor and one build actor per distinct request in flight.
//!
//! - [`Builds`] owns the table of requests in flight, so that identical ones of a tenant share one
//!   realisation, and the slots, of which a policy leaves each tenant so many (`limits`). It hears [`Realise`] and [`Abandon`] from volumes, [`ListBuilds`] and
//!   [`Subscribe`] from the admin socket, and the ends of its build actors.
//! - `BuildActor` owns one realisation: evaluation, then fetch and build; its progress and its GC
//!   roots. It ends with it. On restart it realises again; what was built or fetched is in the
//!   store.
//! - [`Memory`]: what is known of sources, and what failed a moment ago. `slots`: who is next.
//!
//! A realisation's GC roots (`<roots>/builds/<n>` and `<n>.drv`) live as long as anybody holds its
//! [`Built`], or works on it.

mod actor;
mod asked;
mod build;
mod counts;
mod failure;
mod handle;
mod in_flight;
mod limits;
mod listeners;
mod memory;
mod messages;
pub(super) mod metrics;
mod root;
mod slots;
mod stage;

pub use actor::{Builds, BuildsConfig};
pub use failure::Failure;
pub use handle::BuildsHandle;
pub use listeners::Listeners;
pub use memory::{Known, Memory, MemoryConfig, Remembered};
pub use messages::{
    Abandon, BuildEvent, BuildOf, BuildSummary, ListBuilds, Ping, Realise, Subscribe,
};
pub use root::RootGuard;

use std::sync::Arc;

use crate::model::StorePath;
use crate::nix::{Realised, Spent};

/// A realised source, rooted until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Built {
    pub realised: Realised,
    /// Of a flake: the commit, or else the hash of its source.
    pub revision: Option<String>,
    pub root: Arc<RootGuard>,
    pub spent: Spent,
    /// What the source evaluated to, with its root.
    pub derivation: Option<(StorePath, Arc<RootGuard>)>,
}
