//! What is said to the keeper.

use std::path::PathBuf;
use std::time::Duration;

use actix::Message;

use super::KeptReport;
use crate::actors::core::ActorGone;
use crate::actors::resolve::Resolved;
use crate::model::Source;

/// Holds a view that a person has made, for so long, also over restarts. Answered with the end in seconds
/// since the epoch, once it is written down.
#[derive(Message)]
#[rtype(result = "Result<u64, KeepError>")]
pub struct Keep {
    pub source: Source,
    pub resolved: Resolved,
    pub keep: Duration,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum KeepError {
    #[error("it is kept until the node restarts only: can't write {}: {reason}", .path.display())]
    NotWritten { path: PathBuf, reason: String },
    #[error(transparent)]
    Gone(#[from] ActorGone),
}

/// Lets go of what [`Keep`] holds: by the source's text, or by the store path.
#[derive(Message)]
#[rtype(result = "Result<(), ReleaseError>")]
pub struct Release(pub String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    #[error("{source_text} is not kept: `nix-csi status` lists what is")]
    NotKept { source_text: String },
    #[error("the node's --keep or --keep-file names {source_text}: take it out there")]
    IsSetting { source_text: String },
    #[error(transparent)]
    Gone(#[from] ActorGone),
}

/// What is kept, and how far it is.
#[derive(Message)]
#[rtype(result = "KeptReport")]
pub struct ListKept;

/// Answered once all that an earlier process kept was looked for: from then on views hold what was found.
#[derive(Message)]
#[rtype(result = "Result<(), ActorGone>")]
pub struct Settled;
