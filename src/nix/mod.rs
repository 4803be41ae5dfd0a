//! Everything that talks to Nix: the `nix` command, the store's database (read-only) and its
//! garbage-collector lock. The only room, beside `mount`, that starts processes.
//!
//! [`Nix`] is what the actors see; `real` drives an installed Nix, `fake` is an in-memory
//! stand-in with faults on demand. One test suite runs over both.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::model::{Closure, FetchFrom, PodTokens, Secret, Source, StorePath, Viewer, Vouched};

mod account;
mod activity;
mod beneath;
pub mod bootstrap;
mod bounds;
mod child;
mod classify;
mod collect;
mod command;
mod conf;
pub mod daemon;
mod db;
mod db_sizes;
mod db_write;
mod delete;
mod derivation;
mod elsewhere;
mod error;
mod eval_jail;
mod eval_programs;
mod evaluate;
mod evaluator;
mod exchange;
mod exit;
pub mod fake;
mod flake;
mod flake_lock;
mod frees;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod garbage;
mod gc_lock;
pub mod greeting;
mod handed;
mod heed;
mod hints;
mod holes;
mod init;
mod internal_log;
mod leftovers;
mod log_line;
mod metrics;
mod nar;
mod netrc;
mod network;
mod output;
mod own;
mod process;

mod progress;
mod push;
mod push_error;
mod real;
mod realise;
#[cfg(test)]
mod recorded;
mod redact;
mod remains;
mod roots;
mod sandbox;
mod schema;
mod secret;
mod secret_file;
mod settings;
mod signatures;
mod spent;
pub mod ssh;
pub mod ssh_key;
pub mod sshd;
mod stage;
mod stall;
mod substituters;
mod tenant_dirs;
mod tenant_disk;
mod text;
mod version;
mod workers;

pub use beneath::remove as remove_tree;
pub use child::{ChildSpec, Readiness, RunningChild};
pub use command::{CommandSpec, Config};
pub use conf::{ConfError, NIX_CONF};
pub use elsewhere::{BuildOn, Elsewhere};
pub use error::{Limit, NixError, RealiseError, Step, TimedOut};
pub use evaluator::{EvalMode, Evaluator};
pub use flake::{Lock, locked_revision};
pub use flake_lock::lock_local_flake;
pub use garbage::{Deletion, Freed, Garbage, Root, Sole, Space, Stock, notes_readings};
pub use gc_lock::sweep_staging;
pub use holes::{Hole, holes};
pub(crate) use metrics::{register_metrics, show_metrics};
pub use netrc::NETRC;
pub use progress::{Progress, ProgressSink, Stage};
pub use push::PushTo;
pub use push_error::{ENDS as PUSH_ENDS, PushError};
pub use real::RealNix;
pub use redact::{Redactor, secrets_of_access_tokens, secrets_of_netrc};
pub use secret::{check_access_tokens, check_signing_key};
pub use secret_file::sweep_secrets;
pub use spent::{BuiltOn, Spent};
pub use substituters::ProbeLimits;
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

impl Origin {
    /// Its name on the wire and in traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Substituted => "substituted",
            Self::Built => "built",
        }
    }
}

/// The end of a successful realisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realised {
    /// The output that `var/result` points to.
    pub root: StorePath,
    pub origin: Origin,
    /// It was fetched from the node's cache, which therefore has all that it refers to.
    pub in_cache: bool,
}

/// What can be realised without any evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Buildable {
    Path(StorePath),
    /// One output of a derivation that is valid in the store.
    Output {
        derivation: StorePath,
        output: String,
    },
}

/// What a flake or an expression evaluates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    pub buildable: Buildable,
    /// The output's path; that of a content-addressed derivation is only known once it is built.
    pub path: Option<StorePath>,
}

/// A right to run, whatever it is, that is given back by dropping it.
pub type Slot = Arc<dyn Any + Send + Sync>;

/// Limits of one realisation; zero is unlimited.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One evaluation, with the sources that it fetches.
    pub evaluate: Limit,
    /// All fetches and builds of one realisation together.
    pub realise: Limit,
    /// The build of one derivation (Nix's `timeout`).
    pub build: Limit,
    /// A build that prints nothing (Nix's `max-silent-time`).
    pub silence: Limit,
    /// A store over ssh from which nothing comes.
    pub stall: Limit,
    /// One push to a cache.
    pub upload: Limit,
}

/// A Nix store and the means to add to it. Blocking functions are marked; call them on a blocking
/// thread.
///
/// The futures cancel their work and everything it started when they are dropped. A `root` is the
/// path of a symlink that the call makes a GC root of its result; its parent directory exists, and on
/// error no root is left.
pub trait Nix: Send + Sync + 'static {
    /// The directory that holds the store paths, as this process sees it.
    fn store_dir(&self) -> &Path;

    /// Finds what a mutable flake reference names at this moment.
    fn lock(
        &self,
        reference: String,
        viewer: Viewer,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<Lock, RealiseError>>;

    /// Evaluates a flake or an expression as an unprivileged user who sees the store, or one of the tenant's
    /// own, and a cache of the tenant's own. `root` then holds the derivation, or the path that it evaluated to.
    fn evaluate(
        &self,
        source: Source,
        viewer: Viewer,
        root: PathBuf,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<Evaluated, RealiseError>>;

    /// What a pod's service-account tokens are exchanged for; `None`: nothing.
    fn exchange(
        &self,
        _tokens: PodTokens,
    ) -> BoxFuture<'static, Result<Option<Secret>, RealiseError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Fetches or builds. The root is made with the same command, so that no collector gets between.
    /// Fetched is with the viewer's secret, from where it may be. `slot` is dropped when all of it has ended, which is a little later than a dropped future.
    fn realise(
        &self,
        what: (Buildable, Viewer),
        root: PathBuf,
        progress: ProgressSink,
        slot: Slot,
    ) -> BoxFuture<'static, Result<Realised, RealiseError>>;

    /// Copies the closures of valid paths to a cache, as far as it lacks them. `Gone` may name any of
    /// them; every other error is of all together.
    fn push(&self, paths: Vec<StorePath>, to: PushTo) -> BoxFuture<'static, Result<(), PushError>>;

    /// Whether Nix would work with the nix.conf at `candidate`, whose text this is, on top of its own
    /// settings.
    fn check_conf(
        &self,
        _candidate: PathBuf,
        _text: String,
    ) -> BoxFuture<'static, Result<(), ConfError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The operator's nix.conf is another one now.
    fn conf_changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// What is allowed and is none of its substituters, for people; nothing if those are not known.
    fn unknown_substituters(&self, _from: &FetchFrom) -> Vec<String> {
        Vec::new()
    }

    /// How many substituters did not answer when they were asked last.
    fn substituters_down(&self) -> usize {
        0
    }

    /// Blocking. Makes `root` a GC root for `path` if the path is valid, without a process, by the
    /// store-safety protocol: under the shared GC lock, or announced over the collector's
    /// socket while a collection runs. `Ok(false)`: not valid, and no root is left.
    fn root_if_valid(&self, path: &StorePath, root: &Path) -> Result<bool, NixError>;

    /// Blocking. The closure of a valid path, from the store's database.
    fn closure(&self, root: &StorePath) -> Result<Closure, NixError>;

    /// Blocking. What signatures of these valid paths are made over, and the signatures.
    fn vouched(&self, paths: &[StorePath]) -> Result<Vec<Vouched>, NixError>;

    /// Blocking. Writes a Nix database of exactly `closure` into the empty or absent directory
    /// `db_dir` (`db.sqlite` in DELETE journal mode, `schema`); registration times, hashes,
    /// derivers, signatures and derivation outputs are the store's.
    fn write_database(&self, closure: &Closure, db_dir: &Path) -> Result<(), NixError>;
}
