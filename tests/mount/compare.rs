//! Entry-by-entry comparison of what a volume shows with the store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    /// Not of directories, which each file system counts its own way.
    size: Option<u64>,
    content: Option<Vec<u8>>,
    link: Option<PathBuf>,
    /// Of regular files, where the file systems are the same.
    inode: Option<u64>,
}

pub(crate) fn same(store: &Path, shown: &Path, inodes: bool) {
    let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
    walk(store, Path::new(""), inodes, &mut expected);
    walk(shown, Path::new(""), inodes, &mut found);
    assert!(!expected.is_empty());
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>(),
        "of {}",
        shown.display()
    );
    for (name, entry) in &expected {
        assert_eq!(*entry, found[name], "{} of {}", name.display(), shown.display());
    }
}

fn walk(base: &Path, below: &Path, inodes: bool, into: &mut BTreeMap<PathBuf, Entry>) {
    let path = if below.as_os_str().is_empty() { base.to_owned() } else { base.join(below) };
    let meta = fs::symlink_metadata(&path).unwrap();
    into.insert(
        below.to_owned(),
        Entry {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: (!meta.is_dir()).then_some(meta.len()),
            content: meta.is_file().then(|| fs::read(&path).unwrap()),
            link: meta.is_symlink().then(|| fs::read_link(&path).unwrap()),
            inode: (meta.is_file() && inodes).then(|| meta.ino()),
        },
    );
    if meta.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            walk(base, &below.join(entry.unwrap().file_name()), inodes, into);
        }
    }
}
