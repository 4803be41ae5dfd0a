//! GC roots of realisations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::nix::sweep_staging;

/// A symlink that Nix takes for a GC root, removed when dropped.
#[derive(Debug)]
pub struct RootGuard(PathBuf);

impl RootGuard {
    pub(super) fn new(link: PathBuf) -> Self {
        Self(link)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RootGuard {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(root = %self.0.display(), %error, "can't remove a GC root");
        }
    }
}

/// Removes the roots that a killed process left: no realisation outlives its process.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    sweep_staging(dir).map_err(io::Error::other)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
