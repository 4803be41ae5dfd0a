//! From a flake or an expression to a derivation, in a jail; see `evaluator`.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::{Source, StorePath};

use super::classify::{Asked, classify};
use super::evaluator::{Evaluator, Task, command, settings};
use super::internal_log::LogReader;
use super::real::Inner;
use super::realise::or_full_disk;
use super::stage::place;
use super::{
    Asker, Buildable, Evaluated, Lock, NixError, ProgressSink, RealiseError, Step, TimedOut,
    output, process,
};

/// A derivation has no root between the evaluator's end and ours: a collector may take it then, and
/// it is made again.
const TRIES: usize = 3;

pub(super) async fn evaluate(
    nix: Arc<Inner>,
    source: Source,
    asker: Asker,
    root: PathBuf,
    progress: ProgressSink,
) -> Result<Evaluated, RealiseError> {
    for number in 1..=TRIES {
        let stdout = match run(&nix, &Task::Instantiate(&source), &asker, &progress).await {
            Err(error) if number < TRIES && lost_a_derivation(&error) => {
                tracing::warn!(%error, "a collector took what an evaluation had made; once more");
                continue;
            }
            ran => ran?,
        };
        let evaluated = output::evaluated(&stdout)?;
        let (Buildable::Output { derivation: path, .. } | Buildable::Path(path)) =
            &evaluated.buildable;
        if place(nix.clone(), path.clone(), root.clone(), ()).await? {
            return Ok(evaluated);
        }
        tracing::warn!(%path, "a collector took a derivation that was just made; once more");
    }
    let cause = "a garbage collector took the derivation again and again".to_owned();
    Err(RealiseError::Temporary { step: Step::Evaluate, cause })
}

/// Collectors of Nix before 2.35 may take what they have told an evaluator that they would spare: a derivation
/// that another one needs. An expression that says the same is tried in vain.
fn lost_a_derivation(error: &RealiseError) -> bool {
    let RealiseError::Refused { cause, .. } = error else { return false };
    let path = cause.split_once("path '").and_then(|(_, rest)| rest.split_once("' is not valid"));
    path.and_then(|(path, _)| StorePath::parse(path).ok()).is_some_and(|path| path.is_derivation())
}

pub(super) async fn lock(
    nix: Arc<Inner>,
    reference: String,
    asker: Asker,
    progress: ProgressSink,
) -> Result<Lock, RealiseError> {
    let (flake, attribute) = match reference.split_once('#') {
        Some((flake, attribute)) => (flake, Some(attribute)),
        None => (&*reference, None),
    };
    let stdout = run(&nix, &Task::Lock(flake), &asker, &progress).await?;
    Lock::parse(&stdout, attribute)
}

/// Runs one evaluator; its standard output.
async fn run(
    nix: &Arc<Inner>,
    task: &Task<'_>,
    asker: &Asker,
    progress: &ProgressSink,
) -> Result<Vec<u8>, RealiseError> {
    let config = &nix.config;
    let tokens = nix.tokens()?;
    let settings = settings(config, &tokens)?;
    let home = {
        let (nix, tenant) = (nix.clone(), asker.tenant.clone());
        let made = tokio::task::spawn_blocking(move || nix.config.evaluator.home(&tenant)).await;
        let what = "making a home for the evaluation";
        made.unwrap_or_else(|panic| Err(NixError::panicked(what, &panic)))?
    };
    let memory = &asker.memory(config.evaluator.memory);
    let evaluator = &Evaluator { memory: memory.most, ..config.evaluator.clone() };
    let spec = command(config, evaluator, task, settings.len(), &home);
    let mut log = LogReader::new(nix.redactor(&tokens));
    progress.update(|p| "evaluating".clone_into(&mut p.current));
    let (limit, rule) = asker.time(config.limits.evaluate);
    let ended = {
        let on_line = |line: &[u8]| progress.update(|p| log.line(line, p));
        limit.bound(process::run(&spec, &settings, on_line, ())).await
    };
    let Some(ended) = ended else {
        return Err(TimedOut { rule, ..TimedOut::whole(Step::Evaluate, limit) }.into());
    };
    let (ended, ()) = ended?;
    if ended.code == Some(0) {
        return Ok(ended.stdout);
    }
    let asked = Asked::Evaluate { memory, limits: &config.limits };
    Err(or_full_disk(classify(&asked, ended.code, &log), &config.state_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_that_a_collector_took_is_told_from_what_else_is_wrong() {
        let refused = |cause: &str| RealiseError::Refused {
            step: Step::Evaluate,
            cause: cause.to_owned(),
            hint: None,
        };
        let path = "/nix/store/554czms6hwggzl1v38gjf7gs65d9v7jw-shared-p2";
        assert!(lost_a_derivation(&refused(&format!("path '{path}.drv' is not valid"))));
        for other in [
            format!("path '{path}' is not valid"),
            "path '/nix/store/x.drv' is not valid".to_owned(),
            "path '/etc/x.drv' is not valid".to_owned(),
            "undefined variable 'x'".to_owned(),
        ] {
            assert!(!lost_a_derivation(&refused(&other)), "{other}");
        }
        let cause = format!("path '{path}.drv' is not valid");
        let elsewhere = RealiseError::Temporary { step: Step::Evaluate, cause };
        assert!(!lost_a_derivation(&elsewhere));
    }
}
