//! The one map from errors to gRPC codes.
//!
//! The kubelet keeps a volume and calls again after `Aborted`, `Unavailable`,
//! `ResourceExhausted`, `DeadlineExceeded` and `Canceled`. Every other code is final: Unpublish may
//! never come, so whoever answers with one has cleaned up.

use tonic::{Code, Status};

use crate::actors::policy::PolicyError;
use crate::actors::volume::{ViewError, VolumeError};
use crate::mount::MountError;
use crate::nix::{NixError, RealiseError};

pub(super) fn status_of(error: &VolumeError) -> Status {
    Status::new(code_of(error), error.to_string())
}

fn code_of(error: &VolumeError) -> Code {
    match error {
        VolumeError::OtherSpec => Code::AlreadyExists,
        VolumeError::OtherTarget { .. } | VolumeError::TargetTaken { .. } => {
            Code::FailedPrecondition
        }
        VolumeError::Removing | VolumeError::Overtaken => Code::Aborted,
        VolumeError::Realise(failure) => code_of_realise(&failure.error),
        // Of a volume that may be mounted: nothing final.
        VolumeError::UnreadableRecord { .. }
        | VolumeError::Vanished { .. }
        | VolumeError::HalfDone { .. }
        | VolumeError::TakenBack { .. }
        | VolumeError::Gone(_) => Code::Unavailable,
        VolumeError::View(error) => match &**error {
            ViewError::Store(error) => code_of_nix(error),
            ViewError::Mount(error) => code_of_mount(error),
            ViewError::Gone(_) => Code::Unavailable,
        },
        VolumeError::Mount(error) => code_of_mount(error),
        VolumeError::Record { source, .. } => code_of_io(source),
        VolumeError::NotPublished { .. } => Code::NotFound,
        VolumeError::Policy(error) => code_of_policy(error),
        VolumeError::Overloaded(_) => Code::ResourceExhausted,
    }
}

fn code_of_policy(error: &PolicyError) -> Code {
    match error {
        PolicyError::Refused { refusal, .. } if refusal.is_of_the_moment() => {
            Code::ResourceExhausted
        }
        PolicyError::Refused { .. } => Code::PermissionDenied,
        PolicyError::Awaited { .. } | PolicyError::Narrowed => Code::Unavailable,
    }
}

fn code_of_realise(error: &RealiseError) -> Code {
    match error {
        RealiseError::Refused { .. } => Code::InvalidArgument,
        RealiseError::BuildFailed { .. } => Code::FailedPrecondition,
        RealiseError::NotFound { .. } => Code::NotFound,
        RealiseError::TimedOut(_) => Code::DeadlineExceeded,
        RealiseError::NoSpace { .. } => Code::ResourceExhausted,
        RealiseError::Temporary { .. } => Code::Unavailable,
        RealiseError::Cancelled => Code::Aborted,
        RealiseError::Store(error) => code_of_nix(error),
    }
}

fn code_of_nix(error: &NixError) -> Code {
    match error {
        NixError::Io { source, .. } => code_of_io(source),
        NixError::NotValid { .. } => Code::NotFound,
        NixError::Database { .. }
        | NixError::Spawn { .. }
        | NixError::Command { .. }
        | NixError::Collector { .. } => Code::Unavailable,
    }
}

fn code_of_mount(error: &MountError) -> Code {
    match error {
        MountError::NotAllowed { .. }
        | MountError::Symlink { .. }
        | MountError::NotADirectory { .. } => Code::InvalidArgument,
        MountError::NoParent { .. }
        | MountError::Foreign { .. }
        | MountError::MissingPath { .. }
        | MountError::Unbounded { .. } => Code::FailedPrecondition,
        MountError::Busy { .. } | MountError::ViewInUse { .. } => Code::Unavailable,
        MountError::NoSpace { .. } => Code::ResourceExhausted,
        MountError::Io { source, .. } => code_of_io(source),
        MountError::Metadata { .. } => Code::Internal,
        MountError::Database(error) => code_of_nix(error),
    }
}

fn code_of_io(error: &std::io::Error) -> Code {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Code::ResourceExhausted
        }
        _ => Code::Internal,
    }
}
