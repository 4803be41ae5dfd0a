//! The builds actor and one build actor per distinct request in flight.
//!
//! - [`Builds`] owns the table of requests in flight, so that identical ones share one realisation,
//!   and the build slots. It hears [`Realise`] and [`Abandon`] from volumes, [`ListBuilds`] from
//!   the admin socket, and `Built` from its build actors.
//! - `BuildActor` owns one realisation: a child process, its progress and its GC root. It ends
//!   with it. On restart it realises again; what was built or fetched is in the store.
//!
//! A realisation's GC root (`<roots>/builds/<n>`) lives as long as anybody holds its [`Built`].

mod actor;
mod build;
mod handle;
mod root;
mod slots;

pub use actor::{Abandon, BuildSummary, Builds, BuildsConfig, ListBuilds, Realise};
pub use handle::BuildsHandle;
pub use root::RootGuard;
pub use slots::{Permit, Place, Slots, Waiting};

use std::sync::Arc;

use crate::nix::Realised;

/// A realised source, rooted until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Built {
    pub realised: Realised,
    pub root: Arc<RootGuard>,
}
