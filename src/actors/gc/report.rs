//! What a collection came to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::pinned::Pinned;
use super::water::{Need, percent};
use crate::model::StorePath;
use crate::nix::{Freed, NixError, Space};

/// A root of the driver's that nobody of it has, and that is gone now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaked {
    pub link: PathBuf,
}

/// Blocking. Removes a root that leaked; nothing if it is gone already.
pub fn remove_leaked(link: PathBuf) -> Option<Leaked> {
    match fs::remove_file(&link) {
        Ok(()) => {
            tracing::warn!(root = %link.display(), "a GC root of nothing is removed");
            Some(Leaked { link })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(root = %link.display(), %error, "a GC root of nothing stays");
            None
        }
    }
}

#[derive(Debug, Default)]
pub struct Report {
    /// Views that nobody used, removed for want of space.
    pub views: usize,
    pub deleted: usize,
    pub freed: Freed,
    /// What became alive after the plan.
    pub alive: usize,
    /// What would have given back next to nothing, since its files have links elsewhere.
    pub shared: usize,
    /// What killed deletions, builds and fetches had left.
    pub remains: usize,
    /// What Nix could not delete, and why.
    pub stuck: Vec<(StorePath, NixError)>,
    pub leaked: Vec<Leaked>,
    /// Directories of other drivers' roots, and how many there are: of a node with another state directory,
    /// or of one that is no more.
    pub others: BTreeMap<String, usize>,
    /// Why paths are kept, as of the last plan, and what was deleted before that.
    pub pinned: Pinned,
    pub deleted_before: usize,
    /// At the end.
    pub space: Space,
    /// What is still to go, and can't.
    pub left: Need,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("{step}: {error}")]
    Nix { step: &'static str, error: NixError },
    #[error("{step} took longer than {}", humantime::format_duration(*.limit))]
    TimedOut { step: &'static str, limit: Duration },
    #[error("{step} has hung for {}: the file system does not answer", humantime::format_duration(*.time))]
    Hangs { step: &'static str, time: Duration },
    #[error("{step}: {reason}")]
    Ended { step: &'static str, reason: String },
    #[error("{path} and others can't be deleted: {error}")]
    Stuck { path: StorePath, error: NixError },
}

impl CollectError {
    /// Others may be deleted.
    pub(super) fn is_of_paths(&self) -> bool {
        matches!(self, Self::Stuck { .. })
    }
}

impl Report {
    /// At the end: what was deleted since the plan is not kept.
    pub(super) fn settle_pinned(&mut self) {
        self.pinned.deleted(self.deleted - self.deleted_before);
    }

    /// What is to be said where too little could go.
    pub(super) fn too_full(&self) -> Option<String> {
        if self.left.is_met() {
            return None;
        }
        let (bytes, inodes) = percent(&self.space);
        Some(format!(
            "the store's file system is too full ({bytes} % of its bytes, {inodes} % of its inodes), and \
             nothing more can go: the rest is in use or was a moment ago (see nix-csi gc --dry-run), or \
             is not the store's"
        ))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} paths deleted, {} freed", self.deleted, ByteSize(self.freed.bytes))?;
        for (count, what) in [
            (self.views, "idle views removed"),
            (self.alive, "paths became alive meanwhile"),
            (self.shared, "paths left that share their files with others"),
            (self.remains, "half-made paths removed"),
            (self.stuck.len(), "paths can't be deleted"),
            (self.leaked.len(), "leaked roots removed"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}
