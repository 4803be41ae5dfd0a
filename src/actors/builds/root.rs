//! GC roots of realisations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix::{Handler, ResponseFuture};
use dashmap::DashMap;

use super::Builds;
use crate::actors::core::{ActorGone, Ctx, blocking};
use crate::actors::gc::holders::SweepRoots;
use crate::actors::gc::report::{Leaked, remove_leaked};
use crate::nix::sweep_staging;

/// Links that somebody has a guard of. No name comes twice in a process.
#[derive(Debug, Clone, Default)]
pub(super) struct Guarded(Arc<DashMap<PathBuf, ()>>);

/// A symlink that Nix takes for a GC root, removed when dropped.
#[derive(Debug)]
pub struct RootGuard {
    link: PathBuf,
    guarded: Guarded,
}

impl RootGuard {
    pub(super) fn new(link: PathBuf, guarded: &Guarded) -> Self {
        guarded.0.insert(link.clone(), ());
        Self { link, guarded: guarded.clone() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.link
    }
}

impl Drop for RootGuard {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.link)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(root = %self.link.display(), %error, "can't remove a GC root");
        }
        self.guarded.0.remove(&self.link);
    }
}

impl Guarded {
    /// Blocking. Removes roots that nobody has a guard of: the guard is there before the root.
    pub(super) fn sweep_others(&self, dir: &Path) -> io::Result<Vec<Leaked>> {
        let mut links = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // What is half made has no name of a root.
            let is_root = !entry.file_name().to_string_lossy().starts_with('.');
            if is_root && entry.file_type()?.is_symlink() {
                links.push(entry.path());
            }
        }
        links.retain(|link| !self.0.contains_key(link));
        Ok(links.into_iter().filter_map(remove_leaked).collect())
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

impl Handler<SweepRoots> for Builds {
    type Result = ResponseFuture<Result<Vec<Leaked>, ActorGone>>;

    fn handle(&mut self, _: SweepRoots, _: &mut Ctx<Self>) -> Self::Result {
        let (guarded, dir) = (self.guarded.clone(), self.config.roots.clone());
        Box::pin(async move {
            let swept = blocking(move || guarded.sweep_others(&dir)).await;
            let swept = swept.map_err(|panic| panic.to_string());
            match swept.and_then(|swept| swept.map_err(|error| error.to_string())) {
                Ok(leaked) => Ok(leaked),
                Err(error) => {
                    tracing::warn!(error, "can't look for leaked roots of realisations");
                    Ok(Vec::new())
                }
            }
        })
    }
}

/// The directory of roots, and the two names of one realisation.
pub(super) fn roots(dir: &Path, number: u64, guarded: &Guarded) -> [Arc<RootGuard>; 2] {
    [format!("{number}"), format!("{number}.drv")]
        .map(|name| Arc::new(RootGuard::new(dir.join(name), guarded)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_root_without_a_guard_goes_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let guarded = Guarded::default();
        let link = |name: &str| {
            let link = dir.path().join(name);
            symlink("/nix/store/x", &link).unwrap();
            link
        };
        let kept = RootGuard::new(link("1"), &guarded);
        let leaked = link("2");
        link(".nix-csi-1-0-3");
        let swept = guarded.sweep_others(dir.path()).unwrap();
        assert_eq!(swept, [Leaked { link: leaked.clone() }]);
        assert!(kept.path().is_symlink() && !leaked.is_symlink());
        assert!(dir.path().join(".nix-csi-1-0-3").is_symlink());
        drop(kept);
        assert!(!dir.path().join("1").is_symlink() && guarded.0.is_empty());
    }
}
