//! Builds on the cluster's cache, which spreads them over its builders: the derivation goes there,
//! the cache builds it for us as for anybody, and what comes of it is fetched as from any
//! substituter, signature and all.
//!
//! No ring can wait for itself: a builder that the cache uses is asked for one derivation by the
//! builder's daemon, which has no builders of its own.

use std::sync::Arc;

use super::classify::{Asked, classify};
use super::command::{self, CommandSpec};
use super::push_error::is_no_entry;
use super::real::Inner;
use super::substituters::Choice;
use super::{Buildable, Config, Origin, ProgressSink, RealiseError, Slot, Step, TimedOut};

/// Where builds run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildOn {
    /// On the cache, or not at all.
    Cache,
    /// On the cache; here while it is down.
    Auto,
}

/// Where something was built, or is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    /// It only has to be fetched; how the cache came by it.
    There(Origin),
}

/// The cache, and when it builds.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    pub on: BuildOn,
    /// Store URL, such as `ssh-ng://nix@nix-cache`.
    pub store: String,
}

impl Elsewhere {
    /// Builds `what` there if it is to be built there, and then it only has to be fetched.
    pub(super) async fn build(
        &self,
        nix: &Arc<Inner>,
        what: &Buildable,
        (progress, slot): (&ProgressSink, &Slot),
        choice: &Choice,
    ) -> Result<Place, RealiseError> {
        let Buildable::Output { derivation, .. } = what else {
            return Ok(Place::Here); // a path is not built
        };
        if let Some(decided) = self.withheld(choice) {
            return decided;
        }
        let built = if let Some(reason) = choice.down_as(&self.store) {
            Err(RealiseError::Temporary { step: Step::Build, cause: reason })
        } else {
            let run = |spec: CommandSpec| async move {
                run(nix, &spec, what, (progress, slot), choice).await
            };
            match run(send(&nix.config, derivation, &self.store).traced()).await {
                Ok(_) => run(build(&nix.config, what, &self.store).traced()).await,
                Err(error) => Err(error),
            }
        };
        match built {
            // Also what no builder there can do, or a disk that is full there: this node may.
            Err(error) if self.on == BuildOn::Auto && !is_final(&error) => {
                tracing::warn!(cache = self.store, %error, "the cache can't build it now: building here");
                Ok(Place::Here)
            }
            Err(RealiseError::NoSpace { step, cause }) => {
                let cause = format!("on the cache {}: {cause}", self.store);
                Err(RealiseError::NoSpace { step, cause })
            }
            Err(RealiseError::Temporary { step, cause }) => {
                let cause = format!("the cache {} can't build it now: {cause}", self.store);
                Err(RealiseError::Temporary { step, cause })
            }
            Err(error) => Err(error),
            Ok(true) => Ok(Place::There(Origin::Built)),
            Ok(false) => Ok(Place::There(Origin::Substituted)),
        }
    }

    /// What to do where the policy lets nothing that it builds be fetched from it.
    fn withheld(&self, choice: &Choice) -> Option<Result<Place, RealiseError>> {
        let from = choice.limited.as_ref().filter(|from| !from.allows(&self.store))?;
        Some(match self.on {
            BuildOn::Auto => Ok(Place::Here),
            BuildOn::Cache => Err(RealiseError::Refused {
                step: Step::Build,
                cause: format!("it would be built on the cache {} alone, and {from}", self.store),
                hint: Some(
                    "the operator names the cache there, or sets --build-on auto".to_owned(),
                ),
            }),
        })
    }
}

/// Whether it would be the same here.
fn is_final(error: &RealiseError) -> bool {
    match error {
        RealiseError::BuildFailed { .. } | RealiseError::TimedOut(_) | RealiseError::Cancelled => {
            true
        }
        RealiseError::Temporary { .. }
        | RealiseError::NotFound { .. }
        | RealiseError::Store(_)
        | RealiseError::Refused { .. }
        | RealiseError::NoSpace { .. } => false,
    }
}

/// What to do about an error of the last step, which is all that is left if the cache has built it.
pub(super) fn lost(
    cache: Option<&Elsewhere>,
    place: Place,
    error: RealiseError,
) -> Result<Place, RealiseError> {
    let Some(cache) = cache.filter(|_| place != Place::Here) else {
        return Err(error);
    };
    if cache.on == BuildOn::Auto {
        tracing::warn!(cache = cache.store, %error, "can't fetch what the cache built: building here");
        return Ok(Place::Here);
    }
    Err(match error {
        RealiseError::Refused { cause, hint, .. } => {
            RealiseError::Refused { step: Step::Fetch, cause, hint }
        }
        RealiseError::BuildFailed { cause, .. } => RealiseError::Temporary {
            step: Step::Fetch,
            cause: format!("the cache {} built it, and does not have it now: {cause}", cache.store),
        },
        error => error,
    })
}

/// The derivation with its inputs' derivations and sources; what is there already is not sent.
fn send(config: &Config, derivation: &crate::model::StorePath, store: &str) -> CommandSpec {
    let features = ["--extra-experimental-features", "nix-command"];
    let what = ["copy", "--derivation", "--to", store, "--"];
    let args = features.into_iter().chain(what).map(Into::into);
    let args = args.chain([derivation.to_string().into()]);
    command::logged(config, config.program.clone(), args)
}

/// The build itself, by the far daemon; it knows its own limits, not ours.
fn build(config: &Config, what: &Buildable, store: &str) -> CommandSpec {
    let args = ["--realise".into(), command::installable(what)].into_iter();
    let mut spec = command::logged(config, config.program.with_file_name("nix-store"), args);
    spec.env.retain(|(name, _)| name != "NIX_REMOTE");
    spec.env.push(("NIX_REMOTE".into(), store.into()));
    spec
}

/// Whether something was built.
async fn run(
    nix: &Arc<Inner>,
    spec: &CommandSpec,
    what: &Buildable,
    (progress, slot): (&ProgressSink, &Slot),
    choice: &Choice,
) -> Result<bool, RealiseError> {
    let (ended, log) = nix.heed(spec, progress, slot.clone(), choice, (Step::Build, None)).await?;
    let Some(ended) = ended else {
        return Err(TimedOut::whole(Step::Build, nix.config.limits.realise).into());
    };
    let (ended, _slot) = ended?;
    if ended.exit.is_ok() {
        return Ok(log.built());
    }
    nix.learn_from(&log);
    // ssh, and who is asked at its other end, say why on lines of their own; Nix only that nobody is there.
    if let Some(line) = log.plain().filter(|line| is_no_entry(line)).last() {
        let cause = format!("the cache does not answer: {line}");
        return Err(RealiseError::Temporary { step: Step::Build, cause });
    }
    let asked = Asked::Realise { what, limits: &nix.config.limits, choice };
    Err(classify(&asked, ended.exit, &log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StorePath;

    #[test]
    fn the_far_store_is_an_argument_or_a_variable_and_a_path_never_an_option() {
        let mut config = Config::new("/home");
        config.daemon_socket = Some("/run/n/s".into());
        let derivation = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x.drv";
        let path = StorePath::parse(derivation).unwrap();
        let what = Buildable::Output { derivation: path.clone(), output: "out".to_owned() };
        let sent = send(&config, &path, "ssh-ng://nix@cache");
        let tail: Vec<_> = sent.args.iter().rev().take(4).rev().collect();
        assert_eq!(tail, ["--to", "ssh-ng://nix@cache", "--", derivation]);
        let built = build(&config, &what, "ssh-ng://nix@cache");
        let remotes: Vec<_> = built.env.iter().filter(|(k, _)| k == "NIX_REMOTE").collect();
        assert_eq!(remotes, [&("NIX_REMOTE".into(), "ssh-ng://nix@cache".into())]);
        let last = built.args.last().unwrap().to_str().unwrap();
        assert_eq!(last, format!("{derivation}!out"));
    }

    /// Nothing is sent there, since nothing may come back.
    #[test]
    fn a_cache_that_the_policy_leaves_out_builds_nothing() {
        let withheld = |on, allowed: &str| {
            let text = format!("preset: open\ndefault: {{substituters: ['{allowed}']}}");
            let limited = crate::model::Policy::parse(&text).unwrap().rules("x").fetch_from();
            let choice = Choice { limited, ..Choice::default() };
            Elsewhere { on, store: "ssh-ng://nix@cache?trusted=1".to_owned() }.withheld(&choice)
        };
        assert_eq!(withheld(BuildOn::Auto, "https://c").unwrap().unwrap(), Place::Here);
        let error = withheld(BuildOn::Cache, "https://c").unwrap().unwrap_err().to_string();
        assert!(error.contains("the policy's substituters"), "{error}");
        assert!(error.contains("sets --build-on auto"), "{error}");
        for on in [BuildOn::Auto, BuildOn::Cache] {
            assert!(withheld(on, "ssh-ng://cache").is_none());
        }
    }
}
