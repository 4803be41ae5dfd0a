//! One source that is kept. Pure but for the clock of `tokio::time`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::Kept;
use crate::actors::core::Backoff;
use crate::actors::views::Lease;
use crate::actors::volume::VolumeError;
use crate::model::{Source, StorePath};
use crate::nix::locked_revision;

/// Between tries of what fails; forgotten with a success only.
pub(super) const AGAIN: Backoff =
    Backoff::new(Duration::from_secs(10), Duration::from_secs(600), Duration::MAX, u32::MAX);
/// Characters of a reason that are shown: a report has many.
const REASON: usize = 1000;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing until its time comes.
    Idle,
    /// Whether it is there already.
    Looking,
    /// Waits for its turn to be realised.
    Queued,
    Realising,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// Seconds since the epoch.
    pub(super) wall: u64,
    pub(super) at: Instant,
}

pub(super) struct Failed {
    reason: String,
    /// Equal for the same failure.
    same: String,
}

pub(super) struct Entry {
    pub(super) source: Source,
    /// The node's settings name it.
    pub(super) is_setting: bool,
    /// A person keeps it.
    pub(super) until: Option<Until>,
    /// What it was realised as.
    pub(super) root: Option<StorePath>,
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) stage: Stage,
    pub(super) due: Instant,
    pub(super) failed: Option<Failed>,
    pub(super) backoff: Backoff,
}

impl Entry {
    pub(super) fn new(source: Source, now: Instant) -> Self {
        Self {
            source,
            is_setting: false,
            until: None,
            root: None,
            lease: None,
            stage: Stage::Idle,
            due: now,
            failed: None,
            backoff: AGAIN,
        }
    }

    /// What it names may change, and the node goes with it. A person keeps what there was.
    pub(super) fn follows(&self) -> bool {
        let may_change = |text: &str| locked_revision(text).is_none();
        self.is_setting && matches!(&self.source, Source::FlakeRef(text) if may_change(text))
    }

    pub(super) fn fail(&mut self, error: &VolumeError, now: Instant) {
        self.due = now + self.backoff.next_delay().unwrap_or_default(); // it never gives up
        let same = error.same();
        if self.failed.as_ref().is_none_or(|failed| failed.same != same) {
            tracing::warn!(source = ?self.source, %error, "can't be kept warm for now");
        }
        let reason = error.lasting_text().chars().take(REASON).collect();
        self.failed = Some(Failed { reason, same });
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_setting || self.until.is_some()
    }

    pub(super) fn state(&self) -> &'static str {
        match self.stage {
            Stage::Realising => "realising",
            Stage::Idle | Stage::Looking | Stage::Queued if self.failed.is_some() => "failing",
            Stage::Idle | Stage::Looking | Stage::Queued if self.lease.is_some() => "ready",
            Stage::Idle | Stage::Looking | Stage::Queued => "waiting",
        }
    }

    pub(super) fn kept(&self, now: Instant) -> Kept {
        let failed = self.failed.as_ref();
        Kept {
            source: self.source.clone(),
            state: self.state(),
            root: self.root.clone(),
            view: self.lease.as_ref().map(|lease| lease.view().id.clone()),
            reason: failed.map(|failed| failed.reason.clone()),
            again_in: failed.map(|_| self.due.saturating_duration_since(now)),
            is_setting: self.is_setting,
            until: self.until.map(|until| until.wall),
        }
    }
}
