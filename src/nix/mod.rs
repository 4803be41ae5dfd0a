//! Everything that talks to Nix: the `nix` command, the store's database (read-only) and its
//! garbage-collector lock. The only room, beside `mount`, that starts processes.
//!
//! [`Nix`] is what the actors see; `real` drives an installed Nix, `fake` is an in-memory
//! stand-in with faults on demand. One test suite runs over both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::model::{Closure, Source, StorePath};

mod child;
mod classify;
mod command;
pub mod daemon;
mod db;
mod db_write;
mod error;
pub mod fake;
mod flake_lock;
mod gc_lock;
mod hints;
mod init;
mod internal_log;
mod leftovers;
mod log_line;
mod output;
mod process;
mod progress;
mod real;
#[cfg(test)]
mod recorded;
mod redact;
mod roots;
mod schema;
mod substituters;
mod text;
mod version;

pub use child::{DaemonSpec, RunningDaemon};
pub use command::{CommandSpec, Config};
pub use error::{NixError, RealiseError, Step};
pub use flake_lock::lock_local_flake;
pub use gc_lock::sweep_staging;
pub use progress::{Progress, ProgressSink};
pub use real::RealNix;
pub use redact::{Redactor, secrets_of_access_tokens, secrets_of_netrc};
pub use substituters::{Choice, Down, ProbeLimits, Substituters};
pub use version::{Capabilities, Flavour};

/// How a realised path came to be in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was valid before anybody asked.
    Present,
    Substituted,
    Built,
}

/// The end of a successful realisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realised {
    /// The output that `var/result` points to.
    pub root: StorePath,
    pub origin: Origin,
}

/// Limits of one realisation.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Whole time of one realisation; `None` is unlimited.
    pub timeout: Option<Duration>,
}

/// A Nix store and the means to add to it. Blocking functions are marked; call them on a blocking
/// thread.
pub trait Nix: Send + Sync + 'static {
    /// The directory that holds the store paths, as this process sees it.
    fn store_dir(&self) -> &Path;

    /// Evaluates, fetches and builds `source`. `root` is the path of a symlink that this call
    /// makes a GC root of the result *with the same command* that realises it, so that no collector
    /// gets between; its parent directory exists. On error no root is left. Dropping the future
    /// cancels the work and everything it started on this side.
    fn realise(
        &self,
        source: Source,
        root: PathBuf,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<Realised, RealiseError>>;

    /// Blocking. Makes `root` a GC root for `path` if the path is valid, without a process, by the
    /// store-safety protocol: under the shared GC lock, or announced over the collector's
    /// socket while a collection runs. `Ok(false)`: not valid, and no root is left.
    fn root_if_valid(&self, path: &StorePath, root: &Path) -> Result<bool, NixError>;

    /// Blocking. The closure of a valid path, from the store's database.
    fn closure(&self, root: &StorePath) -> Result<Closure, NixError>;

    /// Blocking. Writes a Nix database of exactly `closure` into the empty or absent directory
    /// `db_dir` (`db.sqlite` in DELETE journal mode, `schema`); registration times, hashes,
    /// derivers, signatures and derivation outputs are the store's.
    fn write_database(&self, closure: &Closure, db_dir: &Path) -> Result<(), NixError>;
}
