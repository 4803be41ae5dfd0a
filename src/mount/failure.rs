//! Turns errors of the kernel into [`MountError`]s that name what was tried on which path.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::MountError;
use crate::nix::NixError;

/// For `map_err`: "can't `verb` `path`". A full disk becomes [`MountError::NoSpace`].
pub(super) fn failed<E: Into<io::Error>>(
    verb: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> MountError {
    move |e| io_error(verb, path.to_owned(), e.into(), None)
}

/// The same for `name` in the directory `dir`, without building the path unless it is needed.
pub(super) fn failed_in<E: Into<io::Error>>(
    verb: &'static str,
    dir: &Path,
    name: &str,
) -> impl FnOnce(E) -> MountError {
    move |e| io_error(verb, dir.join(name), e.into(), None)
}

pub(super) fn io_error(
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
    detail: Option<String>,
) -> MountError {
    if is_full(&source) {
        MountError::NoSpace { path }
    } else {
        MountError::Io { verb, path, source, detail }
    }
}

/// For `map_err` of calls that add a mount: there ENOSPC is the limit of mounts, not a full disk.
pub(super) fn mount_failed(
    verb: &'static str,
    path: &Path,
) -> impl FnOnce(rustix::io::Errno) -> MountError {
    move |e| MountError::Io {
        verb,
        path: path.to_owned(),
        source: e.into(),
        detail: (e == rustix::io::Errno::NOSPC)
            .then(|| "this mount namespace is full: see sysctl fs.mount-max".to_owned()),
    }
}

/// Errors of the database's writer; a full disk keeps its own variant.
pub(super) fn database_failed(db_dir: &Path, e: NixError) -> MountError {
    let full = match &e {
        NixError::Io { source, .. } => is_full(source),
        NixError::Database { source, .. } => {
            source.sqlite_error_code() == Some(ErrorCode::DiskFull)
        }
        NixError::NotValid { .. }
        | NixError::Spawn { .. }
        | NixError::Command { .. }
        | NixError::Collector { .. } => false,
    };
    if full { MountError::NoSpace { path: db_dir.to_owned() } } else { MountError::Database(e) }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_full_disk_is_not_a_full_mount_table() {
        let path = Path::new("/x");
        assert!(matches!(failed("write", path)(Errno::NOSPC), MountError::NoSpace { .. }));
        assert!(matches!(failed("write", path)(Errno::DQUOT), MountError::NoSpace { .. }));
        let full = mount_failed("mount", path)(Errno::NOSPC);
        assert!(full.to_string().contains("fs.mount-max"), "{full}");
        let nix = NixError::Io { verb: "write", path: path.into(), source: Errno::NOSPC.into() };
        assert!(matches!(database_failed(path, nix), MountError::NoSpace { .. }));
    }
}
