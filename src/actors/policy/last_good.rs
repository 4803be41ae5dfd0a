//! The last good policy, `<state-dir>/policy.yaml`: what counts until its source answers. Blocking.

use std::io::ErrorKind;
use std::path::Path;

use crate::actors::reconciler::{read_text, write_if_other};
use crate::model::Policy;

/// `Ok(None)`: there is no such file.
pub(super) fn text_in(file: &Path) -> Result<Option<String>, String> {
    if file.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    read_text(file).map(Some)
}

/// `Ok(None)`: there has never been one.
pub(super) fn load(file: &Path) -> Result<Option<(String, Policy)>, String> {
    let told = |why: String| format!("the last good policy, {}: {why}", file.display());
    let Some(text) = text_in(file).map_err(&told)? else { return Ok(None) };
    let policy = Policy::parse(&text).map_err(|error| told(error.to_string()))?;
    Ok(Some((text, policy)))
}

pub(super) fn save(file: &Path, text: &str) -> Result<(), String> {
    write_if_other(file, text.as_bytes(), 0o600)?;
    // The rename survives the machine, too.
    let dir = file.parent().unwrap_or(file);
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| format!("can't write {}: {error}", dir.display()))
}
