//! Files as daemons want them: plain, whole at every moment, of a certain mode.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::keys::MAX_FILE;
use crate::read::{at_most, whole};

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        // A pipe would never end.
        let options = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = fs::OpenOptions::new().read(true).custom_flags(options).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        whole(file, MAX_FILE)
    };
    read().map_err(|e| format!("can't read it: {e}"))
}

/// The same of a text.
pub(in crate::actors) fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read_file(path)?).map_err(|_| "it is not UTF-8".to_owned())
}

/// Whole at every moment; whether there was anything to write.
pub(in crate::actors) fn write_if_other(
    target: &Path,
    text: &[u8],
    mode: u32,
) -> Result<bool, String> {
    let is_same = || -> io::Result<bool> {
        let found = fs::symlink_metadata(target)?;
        let is_ours = found.is_file() && found.permissions().mode() & 0o7777 == mode;
        Ok(is_ours && at_most(target, text.len())? == text)
    };
    if is_same().unwrap_or(false) {
        return Ok(false);
    }
    place(&stage(target, text, mode)?, target).map(|()| true)
}

/// Writes what is to become `target`.
pub(super) fn stage(target: &Path, text: &[u8], mode: u32) -> Result<PathBuf, String> {
    let staged = target.with_extension("new");
    let write = || {
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir)?;
        }
        match fs::remove_file(&staged) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&staged)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?; // whatever the umask
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(|e| format!("can't write {}: {e}", staged.display()))?;
    Ok(staged)
}

pub(super) fn place(staged: &Path, target: &Path) -> Result<(), String> {
    fs::rename(staged, target).map_err(|e| format!("can't write {}: {e}", target.display()))
}
