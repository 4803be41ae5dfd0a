//! What can go wrong with Nix, by what the caller can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::StorePath;

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
    #[error("{step} failed: {cause}{}", in_brackets(.hint))]
    Refused { step: Step, cause: String, hint: Option<String> },
    /// A derivation failed. `log_tail` holds the last lines of its output.
    #[error("build of {derivation} failed: {cause}{}", log_lines(.log_tail))]
    BuildFailed { derivation: String, cause: String, log_tail: Vec<String> },
    /// A path that nobody has.
    #[error("{path} is not in the node's store and no substituter has it{}", in_brackets(.hint))]
    NotFound { path: StorePath, hint: Option<String> },
    #[error("{step} took longer than {}: raise {setting}", humantime::format_duration(*.limit))]
    TimedOut { step: Step, limit: Duration, setting: &'static str },
    /// The disk is full.
    #[error("{step} failed: no space left on the store's file system: {cause}")]
    NoSpace { step: Step, cause: String },
    /// A daemon that is gone, a network that failed: worth another try.
    #[error("{step} failed for now: {cause}")]
    Temporary { step: Step, cause: String },
    #[error("cancelled: nobody waits for it any more")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] NixError),
}

pub(super) fn io_error(verb: &'static str, path: &Path, source: io::Error) -> NixError {
    let path = path.to_owned();
    NixError::Io { verb, path, source }
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

impl RealiseError {
    /// A closed set of names for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::BuildFailed { .. } => "build_failed",
            Self::NotFound { .. } => "not_found",
            Self::TimedOut { .. } => "timed_out",
            Self::NoSpace { .. } => "no_space",
            Self::Temporary { .. } => "temporary",
            Self::Cancelled => "cancelled",
            Self::Store(_) => "store",
        }
    }
}
