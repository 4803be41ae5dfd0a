//! The operator's policy: what each namespace may ask for.
//!
//! - [`Policies`]
//!   - owns: what is known of the policy, and the last good one on disk;
//!   - hears: the watch of a ConfigMap, or changes of a file and its own tick;
//!   - tells: whoever has a [`PolicyHandle`], which asks nobody;
//!   - on restart: reads the last good one, and its source anew.
//!
//! What is mounted stays, whatever the policy says later. One that can't be used, or is gone, leaves the last
//! good one in force: to allow more, somebody has to write so.

mod access;
mod actor;
mod grants;
mod handle;
mod last_good;

pub use access::{Access, AccessError};
pub(super) use actor::start;
pub use actor::{Policies, PolicyConfig, PolicySource};
pub use handle::{Admitted, Known, PolicyError, PolicyHandle, PolicyReport};

/// Of the policy in metrics and logs.
pub(super) const KIND: &str = "policy";
/// Of the health that is set.
pub(super) const PART: &str = "policy";
/// Of a ConfigMap's data.
pub const KEY: &str = "policy.yaml";
