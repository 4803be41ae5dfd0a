//! Copies an environment's closure from an image's store into another one, which may be in use: the node's, whose
//! place in the pod the image's store has until then.
//!
//! - **Nix writes**, by `nix-store --import`: it takes its locks, and a path is valid when it is whole. What it
//!   imports is read and put into that format here, since Nix opens no store on a read-only file system.
//! - **No collector** of the destination runs until the roots are placed: its lock is held, shared.
//! - **One at a time**, by a lock of ours: the links are two environments' otherwise.
//! - Done is told by the database and two links, without a process.

mod closure;
mod error;
mod import;
mod links;
mod place;
mod temp_roots;

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use crate::crash::crash_point;
use crate::model::StorePath;

use self::closure::{Source, missing};
use self::error::BootstrapError as Error;
use self::links::Links;
use self::place::Place;
use super::NixError;
use super::command::Config;
use super::gc_lock::{GcLock, wait_for_lock};

pub use self::error::BootstrapError;

/// In the destination's state directory; who copies into it holds it.
const LOCK: &str = "nix-csi-bootstrap.lock";

/// For [`crate::crash`].
pub const CRASH_POINTS: &[&str] = &[
    "bootstrap-locked",
    "bootstrap-made",
    "bootstrap-importing",
    "bootstrap-sent",
    "bootstrap-imported",
    "bootstrap-synced",
    "bootstrap-previous-kept",
    "bootstrap-rooted",
    "bootstrap-link-staged",
    "bootstrap-linked",
];

/// What is to be copied where.
#[derive(Debug)]
pub struct Bootstrap {
    /// The image's `/nix`.
    pub from: PathBuf,
    /// Where the other `/nix` is seen.
    pub to: PathBuf,
    /// `None`: where `var/result` of `from` leads.
    pub environment: Option<StorePath>,
    /// The nix program.
    pub nix: PathBuf,
    /// Where it is.
    pub search_path: OsString,
    /// Our binary, which guards Nix.
    pub guard: PathBuf,
}

/// What there is now.
#[derive(Debug, PartialEq, Eq)]
pub struct Bootstrapped {
    pub environment: StorePath,
    /// Paths that were copied; `None`: everything was in place.
    pub copied: Option<usize>,
}

impl Bootstrap {
    /// Blocks. To be run by itself: it waits for a collection of the destination, and for another bootstrap.
    pub async fn run(&self) -> Result<Bootstrapped, Error> {
        let environment = match &self.environment {
            Some(environment) => environment.clone(),
            None => links::environment_of(&self.from)?,
        };
        let place = Place::open(&self.to, &self.from)?;
        let links = Links::of(&place);
        let copied = if is_done(&place, &links, &environment)? {
            None
        } else {
            Some(self.copy(&place, &links, &environment).await?)
        };
        Ok(Bootstrapped { environment, copied })
    }

    /// How many paths were copied.
    async fn copy(
        &self,
        place: &Place,
        links: &Links,
        environment: &StorePath,
    ) -> Result<usize, Error> {
        place.make()?;
        let _one = wait_for_lock(&place.state_dir.join(LOCK), FlockOperation::LockExclusive)?;
        links.make()?;
        crash_point("bootstrap-locked");
        let gc = GcLock::new(&place.state_dir, false);
        let _no_collector = gc.hold()?;
        let source = Source::read(&self.from, environment)?;
        let config = self.config(place);
        import::init(&config, &source, place).await?;
        crash_point("bootstrap-made");
        let missing = missing(&source.closure, place)?;
        if !missing.is_empty() {
            import::import(&config, source, &missing, place).await?;
        }
        crash_point("bootstrap-imported");
        place.is_whole(environment)?;
        // A root says that it is all there, also after a power cut.
        place.sync()?;
        crash_point("bootstrap-synced");
        links.lead_to(environment, place, &gc)?;
        Ok(missing.len())
    }

    fn config(&self, place: &Place) -> Config {
        Config {
            program: self.nix.clone(),
            guard: Some(self.guard.clone()),
            state_dir: place.state_dir.clone(),
            search_path: self.search_path.clone(),
            ..Config::new("/")
        }
    }
}

/// What is rooted stays, so nothing has to be held to ask.
fn is_done(place: &Place, links: &Links, environment: &StorePath) -> Result<bool, Error> {
    if !links.all_lead_to(environment) {
        return Ok(false);
    }
    match place.is_valid(environment) {
        Ok(true) => place.is_whole(environment).map(|()| true),
        // Who was killed while it wrote may have left what only a writer can read.
        Ok(false) | Err(NixError::Database { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
