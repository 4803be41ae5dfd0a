//! A netrc of one request's, for as long as that works. Blocking.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::NixError;
use super::error::io_error;

/// Gone when it is dropped, and at the next start if we are killed before.
#[derive(Debug)]
pub(super) struct SecretFile(PathBuf);

impl SecretFile {
    /// For the evaluators' user, and for root without any power over others' files.
    pub(super) fn new(dir: &Path, text: &[u8], uid: u32) -> Result<Self, NixError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        make_dir(dir)?;
        let path = dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let this = Self(path.clone());
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o440).open(&path)?;
            fchown(&file, Some(uid), None)?;
            file.write_all(text)
        };
        write().map_err(|err| io_error("write", &path, err))?;
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(file = %self.0.display(), %error, "a secret's file can't be removed");
        }
    }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), NixError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|err| io_error("create", dir, err))
}

/// What a process before this one has left. For the start.
pub fn sweep_secrets(dir: &Path) -> Result<(), NixError> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir, err)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::getuid;

    use super::*;

    #[test]
    fn a_secret_is_there_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("secrets");
        let file = SecretFile::new(&dir, b"hunter2", getuid().as_raw()).unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "hunter2");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&dir), mode(file.path())), (0o700, 0o440));
        let path = file.path().to_owned();
        drop(file);
        assert!(!path.try_exists().unwrap());
        std::mem::forget(SecretFile::new(&dir, b"hunter2", getuid().as_raw()).unwrap());
        sweep_secrets(&dir).unwrap();
        assert!(!dir.try_exists().unwrap());
        sweep_secrets(&dir).unwrap();
    }
}
