//! What both presentations share: the directories around the store's paths, `v/` with `store/` and
//! `var/`, and the check that every path is there.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;
use tracing::Span;

use super::failure::{database_failed, failed};
use super::metadata::Entry;
use super::{MountError, Presentation, WriteDatabase, hardlink, redirect, sys};
use crate::crash::crash_point;
use crate::model::{Closure, StorePath};

/// In a view's directory: what was made for it.
pub(super) const LAYER: &str = "layer";
/// In a view's directory: where it is mounted.
pub(super) const MNT: &str = "mnt";
/// In both of them: what a volume shows.
pub(super) const SHOWN: &str = "v";
/// All that is in there.
pub(super) const PARTS: [&str; 2] = ["store", "var"];
/// A symlink that every view has, of an inode that only its own layer has.
pub(super) const MARKER: &str = "var/nix/gcroots/result";

/// The store's directory, held open.
pub(super) struct StoreDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl StoreDir {
    pub(super) fn open(path: &Path) -> Result<Self, MountError> {
        Ok(Self { fd: sys::open_dir(path)?, path: path.to_owned() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that is not there is an error here, because as a redirect it would be a silent empty
    /// directory.
    pub(super) fn look_up(&self, path: &StorePath) -> Result<Stat, MountError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statat(&self.fd, path.base_name(), flags) {
            Ok(found) => Ok(found),
            Err(Errno::NOENT) => Err(MountError::MissingPath { path: path.clone() }),
            Err(e) => Err(failed("look up", &self.path.join(path.base_name()))(e)),
        }
    }

    pub(super) fn unsupported(&self, path: &StorePath) -> MountError {
        MountError::Io {
            verb: "show",
            path: self.path.join(path.base_name()),
            source: std::io::Error::from(Errno::INVAL),
            detail: Some("not a directory, regular file or symlink".to_owned()),
        }
    }
}

/// What was found and done while the layer's `v/store` was made.
pub(super) struct Filled {
    pub(super) entries: Vec<Entry>,
    pub(super) metacopy: bool,
}

impl Filled {
    pub(super) fn with_capacity(paths: usize) -> Self {
        Self { entries: Vec::with_capacity(paths), metacopy: false }
    }

    pub(super) fn push(&mut self, path: &StorePath, found: &Stat) {
        let name = path.base_name().to_owned();
        self.entries.push(Entry(name, found.st_dev, found.st_ino));
    }
}

/// Makes the whole layer in the absent directory `layer`.
pub(super) fn make(
    layer: &Path,
    presentation: Presentation,
    store: &StoreDir,
    closure: &Closure,
    database: WriteDatabase<'_>,
) -> Result<Filled, MountError> {
    let shown = layer.join(SHOWN);
    let store_to = shown.join("store");
    let db = shown.join("var/nix/db");
    let gcroots = shown.join("var/nix/gcroots");
    let dirs =
        [layer, &shown, &store_to, &shown.join("var"), &shown.join("var/nix"), &db, &gcroots];
    for dir in dirs {
        make_dir(dir)?;
    }
    let root = closure.root.to_string();
    for link in [shown.join("var/result"), shown.join(MARKER)] {
        symlink(&root, &link).map_err(failed("make the link", &link))?;
    }
    crash_point("view-skeleton-made");
    let fd = sys::open_dir(&store_to)?;
    let fill = || match presentation {
        Presentation::Redirect => redirect::fill(store, fd.as_fd(), &store_to, closure),
        Presentation::Hardlink => hardlink::fill(store, fd.as_fd(), &store_to, closure),
    };
    let (filled, written) = beside(fill, || database(&db));
    let filled = filled?;
    crash_point("view-layer-made");
    written.map_err(|e| database_failed(&db, e))?;
    crash_point("view-database-written");
    Ok(filled)
}

/// Both at once: the one waits for the file system, the other for the processor.
fn beside<A, B: Send>(here: impl FnOnce() -> A, there: impl Fn() -> B + Sync) -> (A, B) {
    let span = Span::current();
    thread::scope(|scope| {
        let spawned = thread::Builder::new().spawn_scoped(scope, || span.in_scope(&there));
        let first = here();
        let second = match spawned {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => there(), // no more threads may be made
        };
        (first, second)
    })
}

/// With mode 0755 whatever the umask is.
pub(super) fn make_dir(dir: &Path) -> Result<(), MountError> {
    fs::create_dir(dir).map_err(failed("make the directory", dir))?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
        .map_err(failed("change the mode of", dir))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn both_are_done_at_once_and_a_panic_is_the_callers() {
        let meeting = Barrier::new(2);
        let meet = || meeting.wait();
        let (a, b) = beside(meet, meet);
        assert_ne!(a.is_leader(), b.is_leader());
        let panicked = std::panic::catch_unwind(|| beside(|| 1, || panic!("there")));
        let message = panicked.unwrap_err();
        assert_eq!(message.downcast_ref::<&str>(), Some(&"there"));
    }
}
