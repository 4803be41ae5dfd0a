//! What a store path holds, as far as a reader sees it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    Link(PathBuf),
    File { size: u64, executable: bool, hash: [u8; 32] },
}

pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// Reads everything below `path`; an error names the entry.
pub(crate) fn read(path: &Path) -> Result<Tree, String> {
    let mut tree = Tree::new();
    walk(path, &mut tree)?;
    let relative = |entry: PathBuf| entry.strip_prefix(path).unwrap().to_owned();
    Ok(tree.into_iter().map(|(name, entry)| (relative(name), entry)).collect())
}

fn walk(path: &Path, tree: &mut Tree) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    let entry = if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            walk(&entry.map_err(failed)?.path(), tree)?;
        }
        Entry::Directory
    } else if meta.is_symlink() {
        Entry::Link(fs::read_link(path).map_err(failed)?)
    } else {
        let content = fs::read(path).map_err(failed)?;
        assert_eq!(content.len() as u64, meta.len(), "{}", path.display());
        let executable = meta.permissions().mode() & 0o111 != 0;
        Entry::File { size: meta.len(), executable, hash: Sha256::digest(&content).into() }
    };
    tree.insert(path.to_owned(), entry);
    Ok(())
}

/// An error names the first difference.
pub(crate) fn same(expected: &Tree, found: &Tree) -> Result<(), String> {
    for (name, entry) in expected {
        match found.get(name) {
            Some(other) if other == entry => {}
            other => return Err(format!("{}: {entry:?} is {other:?}", name.display())),
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(more) => Err(format!("{} is new", more.display())),
        None => Ok(()),
    }
}
