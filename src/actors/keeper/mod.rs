//! Closures that a node keeps warm: realised and presented before a pod asks, and held.
//!
//! - [`Keeper`]
//!   - owns: what is kept (`table` of `entry`s, pure), with the leases that hold the views and thereby the GC
//!     roots;
//!   - hears: [`Keep`], [`Release`] and [`ListKept`] from the admin socket, changes of the file that lists
//!     sources, the ends of its own looks, and its timer;
//!   - asks: builds and views, as a volume of nobody's pod; one realisation at a time;
//!   - on restart: reads its record and the file anew, and takes over the views that are there.
//! - `file`: that file, read and followed.
//! - `record`: what is kept, for the next process: one file, replaced as a whole.
//! - `handle`: what a person asks for once (`prefetch`), which is no business of the actor's unless it is to
//!   be kept.
//!
//! Nobody waits for it: its end costs warmth and nothing else.

mod actor;
mod entry;
mod file;
mod handle;
mod messages;
mod record;
mod report;
mod table;

pub use actor::{Keeper, KeeperConfig};
pub use handle::{KeeperHandle, PrefetchError, Prefetched};
pub use messages::{Keep, KeepError, ListKept, Release, ReleaseError, Settled};
pub use report::{Kept, KeptReport};

/// The file that lists sources, in metrics and logs.
pub(super) const FILE: &str = "keep-file";
/// Values of `state` in `nixcsi_kept`.
pub(super) const STATES: [&str; 4] = ["waiting", "realising", "ready", "failing"];
