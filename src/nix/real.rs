//! An installed Nix.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::model::{Closure, Source, StorePath};

use super::classify::classify;
use super::command::{self, Config};
use super::db::Database;
use super::error::io_error;
use super::gc_lock::{GcLock, staging_name};
use super::internal_log::LogReader;
use super::{
    Capabilities, Nix, NixError, Origin, ProgressSink, RealiseError, Realised, Step, db_write,
    output, process,
};

/// Drives the `nix` command, and reads the store's database and GC lock beside it.
#[derive(Clone)]
pub struct RealNix(Arc<Inner>);

struct Inner {
    config: Config,
    database: Database,
    capabilities: OnceLock<Capabilities>,
}

impl RealNix {
    /// Opens nothing yet: the store may appear later.
    pub fn open(config: Config) -> Self {
        Self(Arc::new(Inner {
            database: Database::new(&config.state_dir),
            capabilities: OnceLock::new(),
            config,
        }))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// What this Nix is; asks it once. Until then the least is assumed.
    pub async fn probe(&self) -> Result<Capabilities, NixError> {
        if let Some(known) = self.0.capabilities.get() {
            return Ok(*known);
        }
        let config = &self.0.config;
        let spec = command::spec(config, config.program.clone(), vec!["--version".into()]);
        let stdout = process::output(&spec, "nix --version").await?;
        let line = String::from_utf8_lossy(&stdout);
        let found = Capabilities::parse(&line).ok_or_else(|| NixError::Command {
            what: "nix --version".to_owned(),
            detail: format!("{:?} names no known version", line.lines().next().unwrap_or_default()),
        })?;
        Ok(*self.0.capabilities.get_or_init(|| found))
    }
}

impl Nix for RealNix {
    fn store_dir(&self) -> &Path {
        &self.0.config.store_dir
    }

    fn realise(
        &self,
        source: Source,
        root: PathBuf,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<Realised, RealiseError>> {
        realise(self.0.clone(), source, root, progress).boxed()
    }

    fn root_if_valid(&self, path: &StorePath, root: &Path) -> Result<bool, NixError> {
        self.0.place(path, root)
    }

    fn closure(&self, root: &StorePath) -> Result<Closure, NixError> {
        self.0.database.closure(root)
    }

    fn write_database(&self, closure: &Closure, db_dir: &Path) -> Result<(), NixError> {
        db_write::write(&self.0.database, closure, db_dir)
    }
}

impl Inner {
    fn place(&self, path: &StorePath, root: &Path) -> Result<bool, NixError> {
        // A daemon's collector may be of another version than our client.
        let rechecks = self.config.daemon_socket.is_none()
            && self.capabilities.get().is_some_and(|c| c.collector_rechecks);
        let gc = GcLock::new(&self.config.state_dir, rechecks);
        gc.place(path, root, || self.database.is_valid(path))
    }
}

/// Nix makes its link in a directory of its own beside `root`, since it names links by output and
/// number. The chosen path's root is then placed like any other, while that link still holds it.
async fn realise(
    nix: Arc<Inner>,
    source: Source,
    root: PathBuf,
    progress: ProgressSink,
) -> Result<Realised, RealiseError> {
    refuse_derivation(&source)?;
    let stage = Stage::new(&root)?;
    let spec = command::build(&nix.config, &source, &stage.0.join("result"));
    progress.update(|p| "evaluating".clone_into(&mut p.current));
    let mut log = LogReader::default();
    let ended = {
        let on_line = |line: &[u8]| progress.update(|p| log.line(line, p));
        let run = process::run(&spec, on_line, stage);
        match nix.config.limits.timeout {
            Some(limit) => tokio::time::timeout(limit, run).await.ok(),
            None => Some(run.await),
        }
    };
    let Some(ended) = ended else {
        return Err(timed_out(&nix.config, &source, &log));
    };
    let (ended, stage) = ended?;
    if ended.code != Some(0) {
        return Err(or_full_disk(classify(&source, ended.code, &log), &nix.config.state_dir));
    }
    let path = output::chosen(&source, &ended.stdout)?;
    root_and_unstage(nix, path.clone(), root, stage).await?;
    let origin = if log.built() {
        Origin::Built
    } else if log.substituted() {
        Origin::Substituted
    } else {
        Origin::Present
    };
    Ok(Realised { root: path, origin })
}

/// 2.8 would build it, newer versions hand it out as it is.
fn refuse_derivation(source: &Source) -> Result<(), RealiseError> {
    match source {
        Source::StorePath(path) if path.name().strip_suffix(".drv").is_some() => {
            Err(RealiseError::Refused {
                step: Step::Evaluate,
                cause: format!("{path} is a derivation"),
                hint: Some("name the output that it builds".to_owned()),
            })
        }
        _ => Ok(()),
    }
}

async fn root_and_unstage(
    nix: Arc<Inner>,
    path: StorePath,
    root: PathBuf,
    stage: Stage,
) -> Result<(), NixError> {
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let still_wanted = wanted.0.clone();
    let blocking = tokio::task::spawn_blocking(move || {
        let placed = nix.place(&path, &root)?;
        if !still_wanted.load(Ordering::Acquire) {
            // Cancelled meanwhile; who cancelled may already have looked for the root.
            let _ = fs::remove_file(&root);
        }
        drop(stage);
        placed.then_some(()).ok_or(NixError::NotValid { path })
    });
    blocking.await.unwrap_or_else(|err| {
        Err(NixError::Command { what: "placing a root".to_owned(), detail: err.to_string() })
    })
}

/// Turns false when its future is dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A daemon that can't write its database hangs up without a word.
fn or_full_disk(error: RealiseError, state_dir: &Path) -> RealiseError {
    /// Less than SQLite's own files may want.
    const ROOM: u64 = 128 << 10;
    let is_full = rustix::fs::statvfs(state_dir)
        .is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < ROOM);
    match error {
        RealiseError::Temporary { step, cause } if is_full => RealiseError::NoSpace { step, cause },
        error => error,
    }
}

fn timed_out(config: &Config, source: &Source, log: &LogReader) -> RealiseError {
    let step = match source {
        _ if log.built() => Step::Build,
        _ if log.substituted() => Step::Fetch,
        Source::StorePath(_) => Step::Fetch,
        _ => Step::Evaluate,
    };
    RealiseError::TimedOut {
        step,
        limit: config.limits.timeout.unwrap_or_default(),
        setting: config.timeout_setting,
    }
}

/// The directory that one `nix build` makes its links in, gone when it is dropped. It lies among
/// the roots, so its links are roots directly. The indirect ones that Nix also makes, named
/// by a hash in `gcroots/auto`, then lead nowhere; the next collection removes them.
struct Stage(PathBuf);

impl Stage {
    fn new(root: &Path) -> Result<Self, NixError> {
        let dir = staging_name(root);
        fs::create_dir(&dir).map_err(|err| io_error("create", &dir, err))?;
        Ok(Self(dir))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %err, "can't remove a staging directory");
        }
    }
}
