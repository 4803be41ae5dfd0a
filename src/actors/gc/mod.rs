//! Garbage collection: what of a store would be collected, why the rest stays, and the collection.
//!
//! - [`GcScheduler`], one per node and per cache
//!   - owns: when to collect, the collection under way, and what the last ones came to;
//!   - hears: [`Meet`] once, with the actors that hold paths; [`Full`] from builds that ran out of space;
//!     [`GetGcStatus`]; its own timer and the ends of its collections;
//!   - asks: `Views`, `Builds` and `CacheUploader` for leaked roots, and `Views` to let go of idle views;
//!   - on restart: forgets, and begins a collection as at its start.
//! - `collect`, `delete`: one collection, with a time limit for each step; `nix-csi gc` runs the same.
//! - [`used`]: the index of last use. `plan`, `water`, `pace`, `why`: pure.

mod collect;
mod config;
mod delete;
pub mod holders;
mod index;
mod messages;
pub(super) mod metrics;
mod pace;
mod pinned;
pub mod plan;
pub mod report;
mod scheduler;
mod stocks;
mod threads;
pub mod used;
pub mod water;
pub mod why;

/// The index of last use, below the state directory.
pub const USED: &str = "used.sqlite";

pub use collect::{Beat, Collector, Rules, add_readings};
pub use config::GcConfig;
pub use messages::{Full, GcHandle, GcStatus, GetGcStatus, Meet};
pub use scheduler::GcScheduler;
pub use threads::Threads;
