//! The machines file on disk.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinError;

use crate::actors::core::blocking;
use crate::read::text_at_most;

/// Nix's daemon may run as another user than we; there is no secret in it.
const MODE: u32 = 0o644;
/// Bytes: a builder takes some 200.
const MAX: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("can't {verb} {}: {source}", .path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("the work on the machines file broke off: {0}")]
    Panicked(#[from] JoinError),
}

/// The file. `turn` keeps a write of an earlier incarnation of the actor apart from this one's read: it
/// may still be under way on its thread.
#[derive(Debug, Clone)]
pub(super) struct MachinesFile {
    path: Arc<Path>,
    turn: Arc<Mutex<()>>,
}

impl MachinesFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into(), turn: Arc::default() }
    }

    /// `None`: there is none.
    pub(super) async fn read(self) -> Result<Option<String>, FileError> {
        let held = self.turn.lock_owned().await;
        let read = move || {
            let _held = held;
            match text_at_most(&self.path, MAX) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => {
                    Err(FileError::Io { verb: "read", path: self.path.to_path_buf(), source })
                }
            }
        };
        blocking(read).await?
    }

    /// A reader has the old text or the new one, never a part.
    pub(super) async fn write(self, text: String) -> Result<(), FileError> {
        let held = self.turn.lock_owned().await;
        let write = move || {
            let _held = held;
            replace(&self.path, &text).map_err(|source| FileError::Io {
                verb: "write",
                path: self.path.to_path_buf(),
                source,
            })
        };
        blocking(write).await?
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    fs::create_dir_all(dir)?;
    // A rename is atomic within a directory only. A leftover of a killed process is overwritten.
    let temporary = dir.join(format!(".{}.tmp", name.to_string_lossy()));
    let written = fs::write(&temporary, text)
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(MODE)))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/machines");
        let file = MachinesFile::new(&path);
        assert_eq!(file.clone().read().await.unwrap(), None);
        for text in ["a\n", ""] {
            file.clone().write(text.to_owned()).await.unwrap();
            assert_eq!(file.clone().read().await.unwrap().as_deref(), Some(text));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, MODE);
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        }
    }

    #[tokio::test]
    async fn a_failed_write_says_where_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machines");
        fs::create_dir(&path).unwrap();
        let file = MachinesFile::new(&path);
        let error = file.clone().write("a\n".to_owned()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("can't write {}: ", path.display())), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(file.read().await.is_err(), "what can't be read is not absent");
    }

    #[tokio::test]
    async fn a_read_waits_for_a_write_that_nobody_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = MachinesFile::new(&dir.path().join("machines"));
        for line in ["a\n", "b\n", "c\n"] {
            // Long enough for a read that does not wait to be first.
            let text = line.repeat(1 << 22);
            let mut write = Box::pin(file.clone().write(text.clone()));
            // Begun, and left, as when the actor is restarted: the thread goes on.
            let _ = futures::poll!(&mut write);
            drop(write);
            assert!(file.clone().read().await.unwrap() == Some(text), "{line}");
        }
    }
}
