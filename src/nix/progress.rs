//! How far a realisation is, shared between the one who runs it and whoever asks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::Spent;
use super::text::{MAX_LINE_BYTES, clean};

use crate::lock::lock;

/// Lines of build log kept for error messages.
const LOG_LINES: usize = 20;

/// What a realisation is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    QueuedEvaluation,
    Evaluating,
    QueuedBuild,
    /// Fetching counts as building: Nix does both at once.
    Building,
}

impl Stage {
    pub const ALL: [Self; 4] =
        [Self::QueuedEvaluation, Self::Evaluating, Self::QueuedBuild, Self::Building];

    /// Its name in metrics and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueuedEvaluation => "queued-evaluation",
            Self::Evaluating => "evaluating",
            Self::QueuedBuild => "queued-build",
            Self::Building => "building",
        }
    }
}

/// A snapshot. Counts are Nix's own expectations, which grow while it plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    /// When this stage began.
    pub since: Option<Instant>,
    pub builds_done: u64,
    pub builds_expected: u64,
    /// Paths fetched from a substituter.
    pub fetches_done: u64,
    pub fetches_expected: u64,
    /// Bytes downloaded, and Nix's expectation of them.
    pub bytes_done: u64,
    pub bytes_expected: u64,
    /// What Nix works on now, such as a derivation's name, or a phase such as `evaluating`.
    pub current: String,
    /// The last lines of the builders' output, oldest first.
    pub log_tail: VecDeque<String>,
    pub spent: Spent,
}

impl Progress {
    /// Adds a builder's line, without terminal escapes, cut and bounded.
    pub fn push_log(&mut self, line: &str) {
        if self.log_tail.len() == LOG_LINES {
            self.log_tail.pop_front();
        }
        self.log_tail.push_back(clean(line, MAX_LINE_BYTES).replace('\n', " "));
    }
}

impl fmt::Display for Progress {
    /// `3 of 12 derivations, fetched 5 of 140 MB, now hello-2.12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.builds_expected > 0 {
            parts.push(format!("{} of {} derivations", self.builds_done, self.builds_expected));
        }
        if self.bytes_expected > 0 {
            let [done, all] = [self.bytes_done, self.bytes_expected].map(|b| b.div_ceil(1_000_000));
            parts.push(format!("fetched {done} of {all} MB"));
        }
        if !self.current.is_empty() {
            parts.push(format!("now {}", self.current));
        }
        if parts.is_empty() { f.write_str("starting") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A shared, cheaply cloned cell with the latest [`Progress`].
#[derive(Debug, Clone, Default)]
pub struct ProgressSink(Arc<Mutex<Progress>>);

impl ProgressSink {
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.0));
    }

    /// Without a copy of it.
    pub fn read<T>(&self, look: impl FnOnce(&Progress) -> T) -> T {
        look(&lock(&self.0))
    }

    pub fn snapshot(&self) -> Progress {
        lock(&self.0).clone()
    }
}
