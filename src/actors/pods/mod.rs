//! The node's pods, as the API server has them.
//!
//! - [`Pods`]
//!   - owns: the [`PodTable`], which the edge reads without a question to anybody;
//!   - hears: the watch; its own tick;
//!   - tells: the table, which ends calls that are held for a pod that is gone; and at each tick
//!     unpublishes volumes of pods that are gone for good (`sweep`);
//!   - on restart: watches anew; the table stays, and the watch's first word replaces it.

mod actor;
mod sweep;
mod table;

pub use actor::{Pods, PodsConfig};
pub use table::{PodLookup, PodTable};
