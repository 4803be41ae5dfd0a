//! What keeps an environment from being copied, for who reads the init container's log.

use std::path::PathBuf;

use super::super::NixError;
use crate::model::{InvalidStorePath, StorePath};

/// Why an environment is not in place.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The destination is none.
    #[error("--to {}: {reason}", .to.display())]
    To { to: PathBuf, reason: String },
    /// Nobody said what is to be copied.
    #[error(
        "{} leads to no environment: {source}: name the environment's store path as an argument",
        .link.display()
    )]
    NoEnvironment { link: PathBuf, source: std::io::Error },
    #[error("{} leads to no environment: {source}", .link.display())]
    OddEnvironment { link: PathBuf, source: InvalidStorePath },
    /// The source does not have it.
    #[error(
        "{path} is not registered in --from {}: the image's store needs a database that has the \
         environment (includeNixDB)",
        .from.display()
    )]
    NotThere { path: StorePath, from: PathBuf },
    /// A part of the source's closure is not what its database says.
    #[error(
        "the closure in --from {} is not complete: {path} is not there as it was registered: build \
         the image anew",
        .from.display()
    )]
    Incomplete { path: StorePath, from: PathBuf },
    /// The destination's store is damaged.
    #[error(
        "--to {}: {path} is registered there, and {what}: repair that store (nix-store --verify \
         --check-contents --repair), or empty it (nix-csi clean --store) where no pod uses it",
        .to.display()
    )]
    Damaged { path: StorePath, to: PathBuf, what: &'static str },
    #[error(
        "--to {}: no space left: {needed} MB are to be copied, {free} MB are free: make room, or \
         collect garbage there (nix-csi gc)",
        .to.display()
    )]
    NoSpace { to: PathBuf, needed: u64, free: u64 },
    #[error(transparent)]
    Nix(#[from] NixError),
}
