//! Where an archive is written to: for its owner alone, never through a symlink, and never over a file unless
//! that is asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// A file of our own; it goes away again unless it is written.
pub(super) struct Target {
    file: File,
    at: PathBuf,
    /// Its name once it is written, if it replaces another.
    becomes: Option<PathBuf>,
    is_done: bool,
}

impl Target {
    pub(super) fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        let (at, becomes) =
            if force { (beside(path)?, Some(path.to_owned())) } else { (path.to_owned(), None) };
        // With O_EXCL no symlink is followed, and nothing of another's is opened.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure(format!("{}: it is there already: --force replaces it", path.display()))
            }
            _ => Failure(format!("{}: {error}", path.display())),
        })?;
        Ok(Self { file, at, becomes, is_done: false })
    }

    pub(super) fn write(mut self, content: &[u8]) -> Result<(), Failure> {
        let shown = self.becomes.as_ref().unwrap_or(&self.at).display().to_string();
        let mut write = || {
            self.file.write_all(content)?;
            match &self.becomes {
                Some(path) => fs::rename(&self.at, path),
                None => Ok(()),
            }
        };
        write().map_err(|error: io::Error| Failure(format!("{shown}: {error}")))?;
        self.is_done = true;
        Ok(())
    }
}

fn beside(path: &Path) -> Result<PathBuf, Failure> {
    let name = path.file_name().ok_or_else(|| format!("{} is no file's name", path.display()))?;
    let name = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(name))
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_done {
            drop(fs::remove_file(&self.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, force: bool) -> Result<(), String> {
        let written = Target::create(path, force).and_then(|target| target.write(b"new"));
        written.map_err(|Failure(text)| text)
    }

    #[test]
    fn a_file_is_its_owners_and_never_another() {
        let dir = tempfile::tempdir().unwrap();
        let [file, other, link] = ["file", "other", "link"].map(|name| dir.path().join(name));
        write(&file, false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&file, false).unwrap_err().ends_with("--force replaces it"));
        fs::write(&other, "other").unwrap();
        symlink(&other, &link).unwrap();
        assert!(write(&link, false).unwrap_err().contains("it is there already"));
        symlink(dir.path().join("none"), dir.path().join("dangling")).unwrap();
        write(&dir.path().join("dangling"), false).unwrap_err();
        // The link is replaced, not what it leads to.
        write(&link, true).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_written_is_not_left() {
        let dir = tempfile::tempdir().unwrap();
        drop(Target::create(&dir.path().join("file"), false).unwrap());
        drop(Target::create(&dir.path().join("file"), true).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write(dir.path(), true).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
