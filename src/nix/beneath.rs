//! A tree of somebody else's, who may change it at any time, also while it is read: every look begins at a
//! directory of ours, follows no link, and waits for nobody.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, readlinkat,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// Where a path begins.
#[derive(Debug)]
pub(super) struct Beneath(OwnedFd);

/// What is at a path.
pub(super) enum Found {
    File {
        file: File,
        bytes: u64,
        is_executable: bool,
    },
    /// Where it leads.
    Link(Vec<u8>),
    Directory(Dir),
}

/// openat2(2) may give EAGAIN while something is renamed anywhere.
const TRIES: usize = 128;
/// Bytes of a path with its end, `PATH_MAX` of the kernel: what is deeper is seen by nobody who asks for it by name.
const MAX_PATH: usize = 4096;
/// Bytes that a block has in stat(2), and the least that an entry counts.
const BLOCK: u64 = 512;
const LEAST: u64 = 4096;
/// Bytes of names of directories that are still to be looked into. A nixpkgs has some 300 kB.
const MAX_TODO: usize = 16 << 20;

impl Beneath {
    /// `dir`, and what leads there, is nobody else's.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(open(dir, flags, Mode::empty())?))
    }

    /// `None`: nothing is there, nothing of these kinds, or only a link leads there.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.found(path) {
            Ok(found) => Ok(found),
            Err(
                Errno::NOENT
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NOTDIR
                | Errno::NXIO
                | Errno::NAMETOOLONG
                // It was a link a moment ago.
                | Errno::INVAL,
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn found(&self, path: &Path) -> Result<Option<Found>, Errno> {
        let (file, found) = match self.at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
        {
            Ok(file) => {
                let found = fstat(&file)?;
                (file, found)
            }
            Err(Errno::LOOP) => {
                let link = self.at(path, OFlags::PATH)?;
                let leads = readlinkat(&link, "", Vec::new())?;
                return Ok(Some(Found::Link(leads.into_bytes())));
            }
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Ok(Some(Found::File {
                file: file.into(),
                bytes: u64::try_from(found.st_size).unwrap_or(0),
                is_executable: Mode::from_raw_mode(found.st_mode).contains(Mode::XUSR),
            })),
            FileType::Directory => Ok(Some(Found::Directory(Dir::new(file)?))),
            _ => Ok(None),
        }
    }

    fn at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
                opened => return opened,
            }
        }
    }

    /// Bytes on disk, or some number above `most`. Each name counts something, what a file of several names has counts
    /// once in all, and what is too deep to be looked at is more than any limit.
    pub(super) fn disk(&self, most: u64) -> io::Result<u64> {
        let (mut bytes, mut todo, mut names) = (0u64, vec![PathBuf::from(".")], 1);
        while let Some(path) = todo.pop() {
            names -= path.as_os_str().len();
            let Some(Found::Directory(mut dir)) = self.find(&path)? else { continue };
            while let Some(name) = next(&mut dir)? {
                let found = match statat(dir.fd()?, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    found => found?,
                };
                let blocks = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    let path = path.join(&name);
                    names += path.as_os_str().len();
                    if path.as_os_str().len() >= MAX_PATH || names > MAX_TODO {
                        return Ok(u64::MAX);
                    }
                    todo.push(path);
                    bytes = bytes.saturating_add(blocks.max(LEAST));
                } else {
                    let links = usize::try_from(found.st_nlink).unwrap_or(usize::MAX).max(1);
                    bytes = bytes.saturating_add((blocks / links as u64).max(LEAST));
                }
            }
            if bytes > most {
                break;
            }
        }
        Ok(bytes)
    }
}

/// Removes a tree in which nobody works any more. How deep it is, its owner decides: what has directories in it is
/// taken apart at the top. Nothing may be mounted below it. A mount point is emptied, and then an error.
pub fn remove(tree: &Path) -> io::Result<()> {
    let top = open(tree, LISTED, Mode::empty())?;
    // Names that nobody has guessed.
    let (own, mut moved) = (RandomState::new().hash_one(tree), 0u64);
    loop {
        let (mut dir, mut is_empty) = (Dir::read_from(&top)?, true);
        while let Some(name) = next(&mut dir)? {
            is_empty = false;
            if unlink(&top, &name)? {
                continue;
            }
            let inner = match openat(&top, &name, LISTED, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                inner => inner?,
            };
            let mut children = Dir::read_from(&inner)?;
            while let Some(child) = next(&mut children)? {
                if !unlink(&inner, &child)? {
                    moved += 1;
                    match renameat(&inner, &child, &top, format!("{own:016x}-{moved}")) {
                        Err(Errno::NOENT) => {}
                        renamed => renamed?,
                    }
                }
            }
            unlink(&top, &name)?;
        }
        if is_empty {
            return fs::remove_dir(tree);
        }
    }
}

const LISTED: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Whether it is gone: it is no directory, or an empty one.
fn unlink(dir: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let removed = match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(dir, name, AtFlags::REMOVEDIR),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The next name in it, without `.` and `..`.
pub(super) fn next(dir: &mut Dir) -> io::Result<Option<OsString>> {
    loop {
        let Some(entry) = dir.read() else { return Ok(None) };
        let entry = match entry {
            // It was removed.
            Err(Errno::NOENT) => return Ok(None),
            entry => entry?,
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            return Ok(Some(name.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nothing_outside_is_found_or_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
        for dir in [tree.join("sub"), other.clone()] {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), "text").unwrap();
        }
        symlink(&other, tree.join("absolute")).unwrap();
        symlink("../other", tree.join("up")).unwrap();
        symlink("sub", tree.join("inside")).unwrap();
        let _socket = UnixListener::bind(tree.join("socket")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), FileType::Fifo, Mode::RWXU, 0)
            .unwrap();
        let beneath = Beneath::open(&tree).unwrap();
        let find = |path: &str| beneath.find(Path::new(path)).unwrap();
        assert!(matches!(
            find("sub/file"),
            Some(Found::File { bytes: 4, is_executable: false, .. })
        ));
        assert!(matches!(find("sub"), Some(Found::Directory(_))));
        assert!(matches!(find("up"), Some(Found::Link(leads)) if leads == b"../other"));
        let deep = "x/".repeat(3000);
        for none in [
            "absolute/file",
            "up/file",
            "inside/file",
            "../other",
            "../other/file",
            "socket",
            "fifo",
            "absent",
            "sub/file/x",
            &deep,
        ] {
            assert!(find(none).is_none(), "{none}");
        }
    }

    #[test]
    fn what_is_on_disk_is_counted_once_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(dir.path().join("large"), vec![1; 1 << 20]).unwrap();
        symlink(dir.path(), tree.join("a/link")).unwrap();
        let size = |most| Beneath::open(&tree).unwrap().disk(most).unwrap();
        assert_eq!(size(u64::MAX), 3 * LEAST);
        let file = tree.join("a/b/file");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        let one = size(u64::MAX);
        assert!((1 << 20..2 << 20).contains(&one), "{one}");
        fs::hard_link(&file, tree.join("same")).unwrap();
        assert_eq!(size(u64::MAX), one);
        File::create(tree.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(size(u64::MAX), one + LEAST);
        for n in 0..1000 {
            fs::write(tree.join(n.to_string()), "").unwrap();
        }
        assert!(size(one + LEAST) > one + LEAST);
    }

    /// An evaluator makes one of any depth, and a stack frame for each directory would be too much: here for a
    /// smaller stack.
    #[test]
    fn a_tree_is_removed_however_deep_it_is() {
        const DEPTH: usize = 5000;
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open(&tree, LISTED, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            at = openat(&at, "d", LISTED, Mode::empty()).unwrap();
        }
        drop(at);
        symlink(dir.path(), tree.join("link")).unwrap();
        assert_eq!(Beneath::open(&tree).unwrap().disk(u64::MAX).unwrap(), u64::MAX);
        let nar =
            crate::nix::nar::hash(&Beneath::open(dir.path()).unwrap(), Path::new("tree"), 1 << 30);
        assert_eq!(nar.unwrap(), None);
        let removed = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            remove(&tree).unwrap();
            remove(&tree).unwrap_err().kind()
        });
        assert_eq!(removed.unwrap().join().unwrap(), io::ErrorKind::NotFound);
    }
}
