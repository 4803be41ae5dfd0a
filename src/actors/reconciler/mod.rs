//! Keeps what daemons read in step with what an operator mounts: keys, known hosts, nix.conf.
//!
//! A mounted Secret changes by a swap of its `..data` link, which is a rename in the directory; a
//! daemon wants plain files of a certain owner and mode, whole at every moment.
//!
//! - Owns: the files that daemons read, and what of their sources was good last.
//! - Hears: changes of the sources' directories, and a slow tick for what no event tells.
//! - Tells: nix-daemon's `ChildProcess` of another nix.conf; what was refused shows in logs and metrics.
//! - On restart: reads everything anew. A file of public keys that is bad then has no last good content.

mod actor;
mod conf;
mod files;
mod keys;
mod sync;
mod watch;

pub use actor::{ConfigReconciler, ReconcilerConfig};
pub use conf::NixConf;
pub(super) use files::{read_text, write_if_other};
#[cfg(any(test, fuzzing))]
pub(crate) use keys::fuzz as fuzz_keys;
pub(super) use sync::directory;
pub use sync::{Item, Kind, bring_up_to_date, remove_copies};
pub(super) use watch::{Look, Looking, TICK, follow};

/// What there is in logs and metrics.
pub(super) const KINDS: [&str; 7] = [
    Kind::AuthorizedKeys.as_str(),
    Kind::PrivateKey.as_str(),
    Kind::KnownHosts.as_str(),
    Kind::SigningKey.as_str(),
    conf::KIND,
    super::keeper::FILE,
    super::policy::KIND,
];
