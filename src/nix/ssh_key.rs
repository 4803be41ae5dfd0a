//! Keys of ssh that are made here.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::NixError;
use super::error::io_error;
use super::sshd::run;

/// The name of the public half.
pub fn with_pub(key: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", key.display()))
}

/// Blocking. Makes a key pair if there is none, by the `ssh-keygen` of `search_path`; aside and renamed, so that one
/// cut short is none.
pub fn make_key(key: &Path, search_path: &OsStr) -> Result<(), NixError> {
    let exists = key.try_exists().map_err(|e| io_error("look at", key, e))?;
    if exists {
        return Ok(());
    }
    let staged = key.with_extension("new");
    for old in [&staged, &with_pub(&staged)] {
        match fs::remove_file(old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", old, e));
            }
            _ => {}
        }
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "nix-csi", "-f"]).arg(&staged);
    run(&mut keygen, search_path)?;
    let rename =
        |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| io_error("rename", from, e));
    rename(&with_pub(&staged), &with_pub(key))?;
    rename(&staged, key)?;
    tracing::info!(key = %key.display(), "made an ssh key");
    Ok(())
}
