//! What can go wrong with Nix, by what the caller can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::StorePath;

use super::hints::NO_CONNECTION;

/// A part of a realisation, named in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Evaluate,
    Fetch,
    Build,
    Register,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evaluate => "evaluate",
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Register => "register",
        })
    }
}

/// Trouble with the store itself; a later try may succeed.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    #[error("can't {verb} {}: {source}", .path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("can't {verb} the store's database {}: {source}", .path.display())]
    Database { verb: &'static str, path: PathBuf, source: rusqlite::Error },
    #[error("{path} is not valid in the store")]
    NotValid { path: StorePath },
    #[error("can't run {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("{what} failed: {detail}")]
    Command { what: String, detail: String },
    #[error("the running garbage collector did not accept {path}: {reason}")]
    Collector { path: StorePath, reason: String },
}

/// Why a source could not be realised.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// The request itself can't work: it doesn't evaluate, there is no such flake, no such path.
    #[error("{}", self.text(None))]
    Refused { step: Step, cause: String, hint: Option<String> },
    /// A derivation failed. `log_tail` holds the last lines of its output.
    #[error("{}", self.text(None))]
    BuildFailed { derivation: String, cause: String, hint: Option<String>, log_tail: Vec<String> },
    /// A path that nobody has.
    #[error("{}", self.text(None))]
    NotFound { path: StorePath, hint: Option<String> },
    /// One of our limits.
    #[error("{}", self.text(None))]
    TimedOut(Box<TimedOut>),
    /// The disk is full.
    #[error("{}", self.text(None))]
    NoSpace { step: Step, cause: String },
    /// A daemon that is gone, a network that failed: worth another try.
    #[error("{}", self.text(None))]
    Temporary { step: Step, cause: String },
    #[error("cancelled: nobody waits for it any more")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] NixError),
}

/// Which limit was reached, by whom, and how to raise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut {
    pub step: Step,
    /// The derivation that took too long, if it was one alone.
    pub derivation: Option<String>,
    /// It ran on but printed nothing.
    pub silent: bool,
    pub limit: Limit,
    /// Of the policy, if it says so and not the setting.
    pub rule: Option<String>,
    pub log_tail: Vec<String>,
}

/// A limit, zero for none, and the setting that raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub most: Duration,
    pub setting: &'static str,
}

impl Limit {
    pub const fn new(setting: &'static str, most: Duration) -> Self {
        Self { most, setting }
    }

    /// Runs `work` within the limit; `None`: it took longer, and was dropped.
    pub(super) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        if self.most.is_zero() {
            return Some(work.await);
        }
        tokio::time::timeout(self.most, work).await.ok()
    }
}

impl NixError {
    /// Work on a thread of its own that panicked.
    pub fn panicked(what: &str, panic: &tokio::task::JoinError) -> Self {
        Self::Command { what: what.to_owned(), detail: panic.to_string() }
    }
}

pub(super) fn io_error(verb: &'static str, path: &Path, source: io::Error) -> NixError {
    let path = path.to_owned();
    NixError::Io { verb, path, source }
}

/// `0.3 s`, `42 s`, `3m 2s`.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => humantime::format_duration(Duration::from_secs(whole)).to_string(),
    }
}

fn in_brackets(hint: &Option<String>) -> String {
    hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default()
}

fn log_lines(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("\nlast lines of its log:\n  {}", lines.join("\n  "))
}

impl TimedOut {
    /// All of a step took longer than its limit.
    pub(super) fn whole(step: Step, limit: Limit) -> Self {
        Self { step, derivation: None, silent: false, limit, rule: None, log_tail: Vec::new() }
    }
}

impl From<TimedOut> for RealiseError {
    fn from(limit: TimedOut) -> Self {
        Self::TimedOut(Box::new(limit))
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.derivation {
            Some(derivation) => write!(f, "build of {derivation}")?,
            None => write!(f, "{}", self.step)?,
        }
        let verb = if self.silent { "printed nothing for" } else { "took longer than" };
        let limit = humantime::format_duration(self.limit.most);
        let log = log_lines(&self.log_tail);
        match &self.rule {
            Some(rule) => {
                write!(f, " {verb} {limit}: the operator raises {rule} of the policy{log}")
            }
            None => write!(f, " {verb} {limit}: raise {}{log}", self.limit.setting),
        }
    }
}

impl RealiseError {
    /// Whether the node's daemon hung up before anything was asked of it, as one does that is told to end when it has
    /// just accepted a connection. Its successor is there.
    pub(super) fn had_no_daemon(&self) -> bool {
        matches!(self, Self::Temporary { cause, .. } if cause.contains(NO_CONNECTION))
    }

    /// What people read; `after` is how long the realisation took until then.
    pub fn text(&self, after: Option<Duration>) -> String {
        let after = after.map(|a| format!(" after {}", seconds(a))).unwrap_or_default();
        match self {
            Self::Refused { step, cause, hint } => {
                format!("{step} failed{after}: {cause}{}", in_brackets(hint))
            }
            Self::BuildFailed { derivation, cause, hint, log_tail } => {
                let (hint, log) = (in_brackets(hint), log_lines(log_tail));
                format!("build of {derivation} failed{after}: {cause}{hint}{log}")
            }
            Self::NotFound { path, hint } => format!(
                "fetch failed{after}: {path} is not in the node's store and no substituter has it{}",
                in_brackets(hint)
            ),
            Self::NoSpace { step, cause } => {
                format!(
                    "{step} failed{after}: no space left on the store's file system: {cause} (what \
                     nothing holds is collected now; `nix-csi gc --dry-run` counts what is held)"
                )
            }
            Self::Temporary { step, cause } => format!("{step} failed for now{after}: {cause}"),
            Self::TimedOut(limit) => limit.to_string(),
            Self::Cancelled | Self::Store(_) => self.to_string(),
        }
    }

    /// Whether the same request would most likely fail the same way: the derivation or the
    /// expression is at fault, not the network, the disk or the daemon.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::BuildFailed { .. } | Self::TimedOut(_) => true,
            Self::NotFound { .. }
            | Self::NoSpace { .. }
            | Self::Temporary { .. }
            | Self::Cancelled
            | Self::Store(_) => false,
        }
    }

    /// A closed set of names for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::BuildFailed { .. } => "build_failed",
            Self::NotFound { .. } => "not_found",
            Self::TimedOut(_) => "timed_out",
            Self::NoSpace { .. } => "no_space",
            Self::Temporary { .. } => "temporary",
            Self::Cancelled => "cancelled",
            Self::Store(_) => "store",
        }
    }
}
