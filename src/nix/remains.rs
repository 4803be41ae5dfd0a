//! What a deletion that was killed leaves in the store: Nix forgets a path before it removes it.

use std::fs;
use std::path::Path;

use crate::model::StorePath;

use super::NixError;

/// See [`super::Garbage::remains`].
pub(super) fn remains(
    store_dir: &Path,
    paths: &[StorePath],
    is_valid: impl Fn(&StorePath) -> Result<bool, NixError>,
) -> Result<Vec<StorePath>, NixError> {
    let mut found = Vec::new();
    for path in paths {
        if fs::symlink_metadata(store_dir.join(path.base_name())).is_ok() && !is_valid(path)? {
            found.push(path.clone());
        }
    }
    Ok(found)
}
