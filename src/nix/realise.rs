//! Fetches and builds, as the driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Secret, StorePath, Viewer};
use crate::read::text_at_most;

use super::classify::{Asked, classify};
use super::elsewhere::{self, Place};
use super::internal_log::LogReader;
use super::network::is_of_a_network;
use super::real::Inner;
use super::secret_file::SecretFile;
use super::stage::{Staging, place};
use super::substituters::Choice;
use super::{
    Buildable, NixError, Origin, ProgressSink, RealiseError, Realised, Slot, Step, TimedOut,
    command, derivation, metrics,
};

/// What Nix has just made is held by nothing of ours yet: a collector that read the roots before may
/// take it, and it is made again. So is a connection that a daemon had accepted when it was told to end.
const TRIES: usize = 3;
/// Bytes of a derivation that is looked into.
const MAX_DERIVATION: usize = 1 << 20;

/// Leaves out the substituters that don't answer; if one goes down in the middle, the command is
/// run again without it, and goes on from what is there.
pub(super) async fn realise(
    nix: Arc<Inner>,
    (what, viewer): (Buildable, Viewer),
    root: PathBuf,
    progress: ProgressSink,
    slot: Slot,
) -> Result<Realised, RealiseError> {
    refuse_derivation(&what)?;
    let from = viewer.fetch_from;
    let secret = With::new(&nix, viewer.secret).await?;
    let mut choice = nix.substituters(&from).await;
    let mut where_to = match &nix.config.elsewhere {
        Some(cache) => cache.build(&nix, &what, (&progress, &slot), &choice).await?,
        None => Place::Here,
    };
    if nix.config.elsewhere.is_some() {
        // It took its time, and may have shown what hangs.
        choice = nix.substituters(&from).await;
    }
    let mut tries = 1;
    loop {
        match run(&nix, (&what, &secret), &root, (&progress, &slot), &choice, where_to).await {
            Err(RealiseError::Store(NixError::NotValid { path })) => {
                if tries == TRIES {
                    let cause = format!("a garbage collector took {path} again and again");
                    return Err(RealiseError::Temporary { step: Step::Build, cause });
                }
                tries += 1;
                tracing::warn!(%path, "a collector took what was just made; once more");
            }
            Err(error) if tries < TRIES && error.had_no_daemon() => {
                tries += 1;
                tracing::warn!(%error, "once more with a new connection");
            }
            Err(error) => {
                if may_be_a_substituters(&error) && !choice.up.is_empty() {
                    let now = nix.substituters_again(&from).await;
                    if now.up.len() < choice.up.len() {
                        tracing::info!(%error, down = ?now.down, "once more without what went down");
                        choice = now;
                        continue;
                    }
                }
                where_to = elsewhere::lost(nix.config.elsewhere.as_ref(), where_to, error)?;
            }
            Ok(realised) => {
                return Ok(match where_to {
                    Place::Here => realised,
                    Place::There(origin) => Realised { origin, ..realised },
                });
            }
        }
    }
}

/// What its request was given.
struct With {
    secret: Option<Secret>,
    netrc: Option<SecretFile>,
}

impl With {
    async fn new(nix: &Arc<Inner>, secret: Option<Secret>) -> Result<Self, NixError> {
        let Some(secret) = secret else { return Ok(Self { secret: None, netrc: None }) };
        let nix = nix.clone();
        let made = tokio::task::spawn_blocking(move || {
            let netrc = nix.netrc_with_ours(&secret)?;
            Ok(Self { secret: Some(secret), netrc })
        });
        made.await.unwrap_or_else(|panic| Err(NixError::panicked("writing a netrc", &panic)))
    }

    fn netrc(&self) -> Option<&Path> {
        self.netrc.as_ref().map(SecretFile::path)
    }
}

/// Whether it may work without a substituter that is down.
fn may_be_a_substituters(error: &RealiseError) -> bool {
    match error {
        RealiseError::Temporary { .. }
        | RealiseError::NotFound { .. }
        | RealiseError::Store(_)
        | RealiseError::Refused { step: Step::Fetch, .. } => true,
        RealiseError::Refused { .. }
        | RealiseError::BuildFailed { .. }
        | RealiseError::TimedOut(_)
        | RealiseError::NoSpace { .. }
        | RealiseError::Cancelled => false,
    }
}

/// Nix makes its link in a directory of its own beside `root`. The root is then placed like any
/// other, while that link still holds the path.
async fn run(
    nix: &Arc<Inner>,
    (what, with): (&Buildable, &With),
    root: &Path,
    (progress, slot): (&ProgressSink, &Slot),
    choice: &Choice,
    where_to: Place,
) -> Result<Realised, RealiseError> {
    let only = choice.only();
    let stage = Staging::new(root)?;
    let mut spec =
        command::realise(&nix.config, what, &stage.link(), only.as_deref(), with.netrc());
    if where_to != Place::Here {
        command::fetch_only(&mut spec);
    }
    let spec = spec.traced();
    progress.update(|p| "planning".clone_into(&mut p.current));
    let kept = (stage, slot.clone());
    let step = (Step::Fetch, with.secret.as_ref());
    let (ended, log) = nix.heed(&spec, progress, kept, choice, step).await?;
    let Some(ended) = ended else {
        let limit = nix.config.limits.realise;
        return Err(TimedOut::whole(step_under_way(what, &log), limit).into());
    };
    let (ended, (stage, _slot)) = ended?;
    nix.learn_from(&log);
    metrics::brought(nix, log.activities());
    if !ended.exit.is_ok() {
        let asked = Asked::Realise { what, limits: &nix.config.limits, choice };
        let error = classify(&asked, ended.exit, &log);
        let error = or_network(error, &log, &nix.config.store_dir);
        return Err(or_full_disk(error, &nix.config.state_dir));
    }
    let path = stage.target()?;
    if !place(nix.clone(), path.clone(), root.to_owned(), stage).await? {
        return Err(NixError::NotValid { path }.into());
    }
    let origin = if log.built() {
        Origin::Built
    } else if log.substituted() {
        Origin::Substituted
    } else {
        Origin::Present
    };
    let in_cache = came_from_cache(nix, &log, &path);
    Ok(Realised { root: path, origin, in_cache })
}

/// All that was fetched, so that a cache which lacks what it refers to is no reason to keep it to ourselves.
fn came_from_cache(nix: &Inner, log: &LogReader, path: &StorePath) -> bool {
    let fetched = log.activities().fetched();
    fetched.contains_key(&path.to_string()) && fetched.values().all(|from| nix.is_cache(from))
}

/// Nix would build it.
fn refuse_derivation(what: &Buildable) -> Result<(), RealiseError> {
    match what {
        Buildable::Path(path) if path.is_derivation() => Err(RealiseError::Refused {
            step: Step::Evaluate,
            cause: format!("{path} is a derivation"),
            hint: Some("name the output that it builds".to_owned()),
        }),
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

/// A derivation whose output is fixed may fetch, and fails with the network. Any other has none, and
/// what it prints of one is its own.
fn or_network(error: RealiseError, log: &LogReader, store_dir: &Path) -> RealiseError {
    let RealiseError::BuildFailed { derivation, cause, log_tail, .. } = &error else {
        return error;
    };
    let Some(line) = log_tail.iter().rev().find(|line| is_of_a_network(line)) else {
        return error;
    };
    let named = log.errors().find_map(|m| m.text.split_once("/nix/store/")?.1.split_once(".drv"));
    let text = named.and_then(|(base, _)| {
        let path = StorePath::from_base_name(&format!("{base}.drv")).ok()?;
        text_at_most(&store_dir.join(path.base_name()), MAX_DERIVATION).ok()
    });
    if !text.is_some_and(|text| derivation::has_fixed_output(&text)) {
        return error;
    }
    let cause = format!("{derivation}: {cause}: {}", line.trim());
    RealiseError::Temporary { step: Step::Fetch, cause }
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
