//! Why a volume can't be published or unpublished, by what the caller can do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::actors::builds::Failure;
use crate::actors::core::{ActorGone, Overloaded};
use crate::actors::policy::{AccessError, PolicyError};
use crate::model::{StorePath, TargetPath, VolumeId};
use crate::mount::MountError;
use crate::nix::NixError;

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(
        "the volume is already published with other attributes, access mode or readonly: unpublish it first"
    )]
    OtherSpec,
    #[error("the volume is published at {known}, not at {asked}: unpublish it there first")]
    OtherTarget { known: TargetPath, asked: TargetPath },
    #[error("target_path {target} has volume {by} on it: unpublish that one, or choose another")]
    TargetTaken { target: TargetPath, by: VolumeId },
    #[error("the volume is being unpublished: publish it again afterwards")]
    Removing,
    #[error("unpublished while it was being published")]
    Overtaken,
    #[error("{0}")]
    Realise(Failure),
    /// It was valid a moment ago: a collector outside of Nix's own protocol took it.
    #[error("{path} vanished from the store while it was being mounted: publish again")]
    Vanished { path: StorePath },
    #[error("present failed: {0}")]
    View(Arc<ViewError>),
    #[error("mount failed: {0}")]
    Mount(#[from] MountError),
    /// Something failed and something is still there; the next call goes on from it.
    #[error("{cause}; what is there was left as it is: call again")]
    HalfDone { cause: Box<VolumeError> },
    /// The policy has changed while something failed.
    #[error("{cause}; what was mounted in part is taken away: call again")]
    TakenBack { cause: PolicyError },
    #[error("can't {verb} the volume's record {}: {source}", .path.display())]
    Record { verb: &'static str, path: PathBuf, source: io::Error },
    /// Kept, because an unreadable record never authorises a removal.
    #[error("the volume's record {} is unreadable ({reason}): unpublish the volume; the file is kept beside the others", .path.display())]
    UnreadableRecord { path: PathBuf, reason: String },
    #[error("no volume {id} is published")]
    NotPublished { id: String },
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error(transparent)]
    Gone(#[from] ActorGone),
}

/// Why a view could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error(transparent)]
    Store(#[from] NixError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Gone(#[from] ActorGone),
}

impl ViewError {
    /// Blocking work on `what` that panicked: an error of this one call.
    pub fn panicked(what: &str, panic: &tokio::task::JoinError) -> Self {
        Self::Mount(MountError::Io {
            verb: "finish work on",
            path: what.into(),
            source: io::Error::other(panic.to_string()),
            detail: None,
        })
    }
}

impl VolumeError {
    /// What stays true: without when it is tried again.
    pub fn lasting_text(&self) -> String {
        match self {
            Self::Realise(failure) => failure.error.text(Some(failure.after)),
            other => other.to_string(),
        }
    }

    /// Equal for the same failure, whenever it happens and however long it took.
    pub fn same(&self) -> String {
        match self {
            Self::Realise(failure) => failure.error.text(None),
            other => other.to_string(),
        }
    }

    /// A closed set of names for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OtherSpec | Self::OtherTarget { .. } | Self::TargetTaken { .. } => "conflict",
            Self::Removing | Self::Overtaken => "overtaken",
            Self::Realise(failure) => failure.error.kind(),
            Self::Vanished { .. } => "vanished",
            Self::View(_) => "view",
            Self::Mount(_) => "mount",
            Self::HalfDone { .. } => "half_done",
            Self::Record { .. } | Self::UnreadableRecord { .. } => "record",
            Self::NotPublished { .. } => "not_published",
            Self::Policy(_) | Self::TakenBack { .. } => "policy",
            Self::Overloaded(_) => "overloaded",
            Self::Gone(_) => "gone",
        }
    }
}

impl From<AccessError> for VolumeError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Policy(refused) => Self::Policy(refused),
            AccessError::Store(error) => Self::View(Arc::new(error.into())),
        }
    }
}

impl From<ActorGone> for Arc<VolumeError> {
    fn from(gone: ActorGone) -> Self {
        Arc::new(VolumeError::Gone(gone))
    }
}

impl From<ActorGone> for Arc<ViewError> {
    fn from(gone: ActorGone) -> Self {
        Arc::new(ViewError::Gone(gone))
    }
}
