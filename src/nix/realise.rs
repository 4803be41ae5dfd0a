//! Fetches and builds, as the driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classify::{Asked, classify};
use super::internal_log::LogReader;
use super::real::Inner;
use super::stage::{Stage, place};
use super::{
    Buildable, NixError, Origin, ProgressSink, RealiseError, Realised, Step, TimedOut, command,
    process,
};

/// Nix makes its link in a directory of its own beside `root`. The root is then placed like any
/// other, while that link still holds the path.
pub(super) async fn realise(
    nix: Arc<Inner>,
    what: Buildable,
    root: PathBuf,
    progress: ProgressSink,
) -> Result<Realised, RealiseError> {
    refuse_derivation(&what)?;
    let choice = nix.substituters().await;
    let only = (!choice.down.is_empty()).then(|| choice.up.join(" "));
    let stage = Stage::new(&root)?;
    let spec = command::realise(&nix.config, &what, &stage.link(), only.as_deref());
    progress.update(|p| "planning".clone_into(&mut p.current));
    let mut log = LogReader::new(nix.redactor());
    let limit = nix.config.limits.realise;
    let ended = {
        let on_line = |line: &[u8]| progress.update(|p| log.line(line, p));
        limit.bound(process::run(&spec, &[], on_line, stage)).await
    };
    let Some(ended) = ended else {
        return Err(TimedOut::whole(step_under_way(&what, &log), limit).into());
    };
    let (ended, stage) = ended?;
    nix.learn_from(&log);
    if ended.code != Some(0) {
        let asked = Asked::Realise { what: &what, limits: &nix.config.limits, choice: &choice };
        let error = classify(&asked, ended.code, &log);
        return Err(or_full_disk(error, &nix.config.state_dir));
    }
    let path = stage.target()?;
    if !place(nix, path.clone(), root, stage).await? {
        return Err(NixError::NotValid { path }.into());
    }
    let origin = if log.built() {
        Origin::Built
    } else if log.substituted() {
        Origin::Substituted
    } else {
        Origin::Present
    };
    Ok(Realised { root: path, origin })
}

/// Nix would build it.
fn refuse_derivation(what: &Buildable) -> Result<(), RealiseError> {
    match what {
        Buildable::Path(path) if path.name().strip_suffix(".drv").is_some() => {
            Err(RealiseError::Refused {
                step: Step::Evaluate,
                cause: format!("{path} is a derivation"),
                hint: Some("name the output that it builds".to_owned()),
            })
        }
        _ => Ok(()),
    }
}

fn step_under_way(what: &Buildable, log: &LogReader) -> Step {
    match what {
        _ if log.built() => Step::Build,
        _ if log.substituted() => Step::Fetch,
        Buildable::Path(_) => Step::Fetch,
        Buildable::Output { .. } => Step::Build,
    }
}

/// A daemon that can't write its database hangs up without a word.
pub(super) fn or_full_disk(error: RealiseError, state_dir: &Path) -> RealiseError {
    /// Less than SQLite's own files may want.
    const ROOM: u64 = 128 << 10;
    let is_full = rustix::fs::statvfs(state_dir)
        .is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < ROOM);
    match error {
        RealiseError::Temporary { step, cause } if is_full => RealiseError::NoSpace { step, cause },
        error => error,
    }
}
