//! From a flake or an expression to a derivation, in a jail; see `evaluator`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::model::{FetchFrom, Limits, Secret, Sight, Source, StorePath, Viewer};

use super::bounds;
use super::classify::{Asked, classify};
use super::error::io_error;
use super::eval_jail::{Seen, Sights};
use super::eval_programs::{self, Found};
use super::evaluator::{Task, Within, command, settings};
use super::exit::LARGE_FILE;
use super::hints::{OWN_STORE, UNSEEN};
use super::internal_log::LogReader;
use super::real::Inner;
use super::realise::or_full_disk;
use super::secret_file::SecretFile;
use super::tenant_dirs::{TenantDir, TenantDirs};
use super::{
    Buildable, Evaluated, Lock, NixError, ProgressSink, RealiseError, Step, TimedOut, handed,
    output, process, stage,
};

/// A derivation has no root between the evaluator's end and ours: a collector may take it then, and
/// it is made again. One that runs without a pause takes about every fifth.
const TRIES: usize = 6;

pub(super) async fn evaluate(
    nix: Arc<Inner>,
    source: Source,
    viewer: Viewer,
    root: PathBuf,
    progress: ProgressSink,
) -> Result<Evaluated, RealiseError> {
    let place = Place::of(&nix, viewer).await?;
    let mut left = TRIES;
    while left > 0 {
        let task = Task::Instantiate(&source);
        let stdout = run_again(&nix, &task, &place, &progress, &mut left).await?;
        let evaluated = output::evaluated(&stdout)?;
        let (Buildable::Output { derivation: path, .. } | Buildable::Path(path)) =
            &evaluated.buildable;
        if place.programs.is_some() {
            run(&nix, &Task::Hand(path), &place, &progress).await?;
        }
        if stage::place(nix.clone(), path.clone(), root.clone(), ()).await? {
            return believed(&nix, evaluated, &place, &root).await;
        }
        tracing::warn!(%path, "a collector took a derivation that was just made; once more");
    }
    let cause = "a garbage collector took the derivation again and again".to_owned();
    Err(RealiseError::Temporary { step: Step::Evaluate, cause })
}

/// What of it the node may act on; without a root if it is refused.
async fn believed(
    nix: &Arc<Inner>,
    evaluated: Evaluated,
    place: &Place,
    root: &Path,
) -> Result<Evaluated, RealiseError> {
    let own = place.programs.is_some().then(|| place.dir.clone());
    let (nix, root) = (nix.clone(), root.to_owned());
    let checked = tokio::task::spawn_blocking(move || {
        handed::check(&nix, evaluated, own.as_deref())
            .inspect_err(|_| drop(std::fs::remove_file(&root)))
    });
    let what = "looking at what was evaluated";
    checked.await.unwrap_or_else(|panic| Err(NixError::panicked(what, &panic).into()))
}

/// Runs it, once more each time that a collector took what it had made or a daemon its connection, as long as there
/// are tries left.
async fn run_again(
    nix: &Arc<Inner>,
    task: &Task<'_>,
    place: &Place,
    progress: &ProgressSink,
    left: &mut usize,
) -> Result<Vec<u8>, RealiseError> {
    loop {
        *left -= 1;
        match run(nix, task, place, progress).await {
            Err(error) if *left > 0 && (error.had_no_daemon() || lost_to_a_collector(&error)) => {
                tracing::warn!(%error, "an evaluation lost what it needs; once more");
            }
            ran => return ran,
        }
    }
}

/// Collectors of Nix before 2.35 may take what they have told an evaluator that they would spare: a derivation
/// that another one needs, or what was fetched for it, which Nix calls `source`. An expression that says the same is
/// tried in vain.
fn lost_to_a_collector(error: &RealiseError) -> bool {
    let RealiseError::Refused { cause, .. } = error else { return false };
    let path = cause.split_once("path '").and_then(|(_, rest)| rest.split_once("' is not valid"));
    path.and_then(|(path, _)| StorePath::parse(path).ok())
        .is_some_and(|path| path.is_derivation() || path.name() == "source")
}

pub(super) async fn lock(
    nix: Arc<Inner>,
    reference: String,
    viewer: Viewer,
    progress: ProgressSink,
) -> Result<Lock, RealiseError> {
    let place = Place::of(&nix, viewer).await?;
    let (flake, attribute) = match reference.split_once('#') {
        Some((flake, attribute)) => (flake, Some(attribute)),
        None => (&*reference, None),
    };
    let mut left = TRIES;
    let stdout = run_again(&nix, &Task::Lock(flake), &place, &progress, &mut left).await?;
    Lock::parse(&stdout, attribute)
}

/// Where an evaluation works.
struct Place {
    dirs: TenantDirs,
    dir: Arc<TenantDir>,
    /// What it sees of the node's store, if it has one of its own.
    programs: Option<Arc<Found>>,
    secret: Option<Secret>,
    netrc: Option<SecretFile>,
    limits: Option<Limits>,
    fetch_from: Option<FetchFrom>,
}

impl Place {
    async fn of(nix: &Arc<Inner>, viewer: Viewer) -> Result<Self, NixError> {
        let nix = nix.clone();
        let made = tokio::task::spawn_blocking(move || {
            let evaluator = &nix.config.evaluator;
            let whose = hex::encode(&viewer.digest()[..12]);
            let Viewer { tenant, sight, secret, limits, fetch_from, tokens: _ } = viewer;
            let netrc = secret.as_ref().map(|secret| nix.netrc_file(secret)).transpose()?.flatten();
            let tenant = hex::encode(&Sha256::digest(tenant.to_string())[..12]);
            let (dir, programs) = match sight {
                Sight::Store => (nix.tenant_dirs.home(evaluator, &tenant)?, None),
                Sight::Own if nix.config.guard.is_none() || nix.config.daemon_socket.is_none() => {
                    return Err(NixError::Command {
                        what: "an evaluation that must not see the store".to_owned(),
                        detail: "it needs a jail and a daemon".to_owned(),
                    });
                }
                Sight::Own => {
                    let dir = nix.tenant_dirs.own(evaluator, &tenant, &whose)?;
                    (dir, Some(eval_programs::find(&nix)?))
                }
            };
            let dirs = nix.tenant_dirs.clone();
            Ok(Self { dirs, dir, programs, secret, netrc, limits, fetch_from })
        });
        let what = "making a home for the evaluation";
        made.await.unwrap_or_else(|panic| Err(NixError::panicked(what, &panic)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.dirs.leave(&self.dir);
    }
}

/// Runs one evaluator; its standard output.
async fn run(
    nix: &Arc<Inner>,
    task: &Task<'_>,
    place: &Place,
    progress: &ProgressSink,
) -> Result<Vec<u8>, RealiseError> {
    let config = &nix.config;
    let mut tokens = nix.tokens()?;
    tokens.add(place.secret.as_ref());
    let settings = settings(config, &tokens)?;
    // Where it is now: it may have been retired meanwhile.
    let (home, store) = (&place.dir.home(), &place.dir.nix());
    let seen = match &place.programs {
        Some(programs) => Seen::Own { store, programs },
        None => Seen::Store,
    };
    let netrc = place.netrc.as_ref().map(SecretFile::path);
    let memory = bounds::memory(place.limits.as_ref(), config.evaluator.memory);
    let sights = Sights { home, seen, netrc };
    let substituters = place.fetch_from.as_ref().map(|from| nix.allowed(from));
    let within = Within { settings: settings.len(), memory: memory.most, substituters };
    let spec = command(config, task, &within, &sights);
    let mut log = LogReader::new(nix.redactor(&tokens, place.secret.as_ref()));
    progress.update(|p| "evaluating".clone_into(&mut p.current));
    let (limit, rule) = bounds::time(place.limits.as_ref(), config.limits.evaluate);
    let ended = {
        let on_line = |line: &[u8]| progress.update(|p| log.line(line, p));
        let ended = limit.bound(process::run(&spec, &settings, on_line, place.dir.clone()));
        tokio::select! {
            biased;
            ended = ended => ended,
            grown = place.dir.outgrown() => return Err(match grown {
                Ok(()) => too_large(nix, place),
                Err(err) => io_error("measure", &config.evaluator.homes, err).into(),
            }),
        }
    };
    let Some(ended) = ended else {
        return Err(TimedOut { rule, ..TimedOut::whole(Step::Evaluate, limit) }.into());
    };
    let (ended, _) = ended?;
    if ended.exit.is_ok() {
        return Ok(ended.stdout);
    }
    let mut said = log.errors().map(|message| &*message.text).chain(log.plain());
    let is_large = |text: &str| LARGE_FILE.iter().any(|words| text.contains(words));
    if ended.exit.is_of_large_file() || said.any(is_large) {
        return Err(too_large(nix, place));
    }
    let asked = Asked::Evaluate { memory: &memory, limits: &config.limits };
    let error = classify(&asked, ended.exit, &log);
    if place.programs.is_none() {
        return Err(or_full_disk(error, &config.state_dir));
    }
    // What is wrong may be in it.
    if let RealiseError::Store(_) = &error {
        nix.tenant_dirs.distrust(&place.dir);
    }
    Err(or_full_disk(seen_from_own_store(error), &config.state_dir))
}

/// Who comes next begins with nothing.
fn too_large(nix: &Inner, place: &Place) -> RealiseError {
    nix.tenant_dirs.distrust(&place.dir);
    bounds::disk_exceeded(nix.config.evaluator.disk)
}

/// What helps is another thing there.
fn seen_from_own_store(error: RealiseError) -> RealiseError {
    match error {
        RealiseError::Refused { step: Step::Evaluate | Step::Fetch, cause, hint }
            if cause.contains("allow-import-from-derivation")
                || cause.contains("/nix/store/")
                    && hint.as_ref().is_none_or(|hint| hint == UNSEEN) =>
        {
            RealiseError::Refused { step: Step::Evaluate, cause, hint: Some(OWN_STORE.to_owned()) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_no_store_is_told_so() {
        let refused = |cause: &str, hint: Option<&str>| RealiseError::Refused {
            step: Step::Fetch,
            cause: cause.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let hint = |error| match seen_from_own_store(error) {
            RealiseError::Refused { hint, .. } => hint,
            other => panic!("{other}"),
        };
        let path = "path '/nix/store/554czms6hwggzl1v38gjf7gs65d9v7jw-x' does not exist";
        assert_eq!(hint(refused(path, None)).as_deref(), Some(OWN_STORE));
        assert_eq!(hint(refused(path, Some(UNSEEN))).as_deref(), Some(OWN_STORE));
        assert_eq!(hint(refused(path, Some("other"))).as_deref(), Some("other"));
        assert_eq!(
            hint(refused("path '/etc/x' does not exist", Some(UNSEEN))).as_deref(),
            Some(UNSEEN)
        );
    }

    #[test]
    fn what_a_collector_took_is_told_from_what_else_is_wrong() {
        let refused = |cause: &str| RealiseError::Refused {
            step: Step::Evaluate,
            cause: cause.to_owned(),
            hint: None,
        };
        let path = "/nix/store/554czms6hwggzl1v38gjf7gs65d9v7jw-shared-p2";
        assert!(lost_to_a_collector(&refused(&format!("path '{path}.drv' is not valid"))));
        let source = "path '/nix/store/554czms6hwggzl1v38gjf7gs65d9v7jw-source' is not valid";
        assert!(lost_to_a_collector(&refused(source)));
        for other in [
            format!("path '{path}' is not valid"),
            "path '/nix/store/x.drv' is not valid".to_owned(),
            "path '/etc/x.drv' is not valid".to_owned(),
            "undefined variable 'x'".to_owned(),
        ] {
            assert!(!lost_to_a_collector(&refused(&other)), "{other}");
        }
        let cause = format!("path '{path}.drv' is not valid");
        let elsewhere = RealiseError::Temporary { step: Step::Evaluate, cause };
        assert!(!lost_to_a_collector(&elsewhere));
    }
}
