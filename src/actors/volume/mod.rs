//! Volumes: one [`VolumeActor`] per mount, the actor that opens them, and the directory by which
//! everybody finds them.
//!
//! - `machine`: the state machine, pure.
//! - `record`: the state on disk.
//! - `effects`: what the machine asks for, on blocking threads and other actors.
//! - `observe`: what a volume tells of itself; `metrics`: of all.
//! - `actor`: the actor that turns messages into events and effects into events.
//! - `directory`: finds a volume's actor. `volumes`: opens it, and recovers all of them at start
//!   (`recovery`). `claims`: which volume has which target.

mod actor;
mod claims;
mod directory;
mod effects;
mod error;
mod machine;
pub(super) mod metrics;
mod observe;
mod record;
mod recovery;
mod volumes;

pub use actor::VolumeActor;
pub use directory::{Directory, UnreadableVolume};
pub use error::{ViewError, VolumeError};
pub use machine::Request;
pub use observe::{VolumeStats, VolumeStatus};
pub use record::recorded;
pub use volumes::{Volumes, VolumesConfig};

#[cfg(any(test, fuzzing))]
pub(crate) use record::{fuzz_record, fuzz_request};
