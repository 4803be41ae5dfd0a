//! What lies in the store and is not valid: killed deletions, builds and fetches leave it, and so does a full
//! disk. No graph has it.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::model::{StoreGraph, StorePath};

use super::NixError;
use super::error::io_error;

/// When the database was made, if the file system tells. One that was lost and made anew knows nothing of what
/// is older than itself, and that may be shown by mounts.
pub(super) fn born(database: &Path) -> Option<u64> {
    let born = fs::metadata(database).and_then(|meta| meta.created()).ok()?;
    Some(born.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// See [`super::Garbage::remains`]. `changed`: last, in seconds since 1970.
pub(super) fn remains(
    store_dir: &Path,
    graph: impl FnOnce() -> Result<StoreGraph, NixError>,
    changed: &RangeInclusive<u64>,
) -> Result<Vec<StorePath>, NixError> {
    let failed = |source| io_error("list", store_dir, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(store_dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // Those who make a path agree by its lock, which is small.
        let name = name.to_str().filter(|name| name.strip_suffix(".lock").is_none());
        found.extend(name.and_then(|name| StorePath::from_base_name(name).ok()));
    }
    // After the list: what has become valid in between stays.
    let graph = graph()?;
    found.retain(|path| graph.find(path).is_none() && is_within(store_dir, path, changed));
    Ok(found)
}

/// By the kernel's time of change: Nix sets the others.
fn is_within(store_dir: &Path, path: &StorePath, range: &RangeInclusive<u64>) -> bool {
    let meta = fs::symlink_metadata(store_dir.join(path.base_name()));
    meta.is_ok_and(|meta| u64::try_from(meta.ctime()).is_ok_and(|at| range.contains(&at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Registered;
    use crate::nix::db::tests::path;

    #[test]
    fn what_is_not_valid_and_old_enough_and_no_older_than_the_database_remains() {
        let dir = tempfile::tempdir().unwrap();
        let [valid, half] = ['a', 'b'].map(|letter| path(letter, "x"));
        for name in [valid.base_name(), half.base_name(), ".links", "tmp-1-2"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join(format!("{}.lock", half.base_name())), "").unwrap();
        let at = fs::metadata(dir.path()).unwrap().ctime().cast_unsigned();
        let known = || {
            let valid = Registered { path: valid.clone(), at: 1, nar_size: 1 };
            Ok(StoreGraph::new(vec![valid], vec![]))
        };
        let found = |changed| remains(dir.path(), known, &changed).unwrap();
        assert_eq!(found(0..=at + 9), [half]);
        assert_eq!(found(0..=at - 60), []);
        assert_eq!(found(at + 60..=u64::MAX), []);
        assert!(born(dir.path()).unwrap().abs_diff(at) < 60);
    }
}
