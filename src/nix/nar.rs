//! A tree as a NAR (nix, `dumpPath`), and its hash, as Nix has it in its database; of a tree of somebody else's.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec;

use ring::digest::{Context, SHA256};
use rustix::fs::Dir;

use super::beneath::{Beneath, Found, next};

/// Bytes of names that are held at once. A nixpkgs has some 100 kB.
const MAX_NAMES: usize = 32 << 20;
const CHUNK: usize = 64 << 10;

/// Blocking. SHA-256 of the NAR of what is at `path`; `None`: nothing that has one of exactly `bytes` bytes.
pub(super) fn hash(tree: &Beneath, path: &Path, bytes: u64) -> io::Result<Option<[u8; 32]>> {
    dump(tree, path, bytes, io::sink())
}

/// Blocking. The same, and the NAR itself goes to `out`; with `None` a part of it. Errors of reading and of writing.
pub(super) fn dump(
    tree: &Beneath,
    path: &Path,
    bytes: u64,
    out: impl Write,
) -> io::Result<Option<[u8; 32]>> {
    let mut nar = Nar {
        tree,
        out,
        hash: Context::new(&SHA256),
        left: bytes,
        names: 0,
        chunk: vec![0; CHUNK],
        path: path.to_owned(),
    };
    let dumped = nar.word(b"nix-archive-1").and_then(|()| nar.tree());
    match dumped {
        Ok(()) if nar.left == 0 => Ok(nar.hash.finish().as_ref().try_into().ok()),
        Ok(()) | Err(Stop::Other) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

enum Stop {
    /// It is not what was looked for.
    Other,
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

struct Nar<'a, W> {
    tree: &'a Beneath,
    out: W,
    hash: Context,
    /// Bytes that are still to come.
    left: u64,
    /// Bytes of names that are held.
    names: usize,
    chunk: Vec<u8>,
    path: PathBuf,
}

/// What is still to come of a directory.
struct Level {
    names: vec::IntoIter<OsString>,
    bytes: usize,
}

impl<W: Write> Nar<'_, W> {
    fn take(&mut self, bytes: u64) -> Result<(), Stop> {
        self.left = self.left.checked_sub(bytes).ok_or(Stop::Other)?;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    fn length(&mut self, bytes: u64) -> Result<(), Stop> {
        self.take(8)?;
        Ok(self.put(&bytes.to_le_bytes())?)
    }

    /// To a multiple of eight.
    fn padding(&mut self, bytes: u64) -> Result<(), Stop> {
        let zeros = bytes.wrapping_neg() % 8;
        self.take(zeros)?;
        Ok(self.put(&[0; 8][..usize::try_from(zeros).unwrap_or(0)])?)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Stop> {
        let bytes = word.len() as u64;
        self.length(bytes)?;
        self.take(bytes)?;
        self.put(word)?;
        self.padding(bytes)
    }

    fn words(&mut self, words: &[&str]) -> Result<(), Stop> {
        words.iter().try_for_each(|word| self.word(word.as_bytes()))
    }

    /// Of what is at `self.path`. How deep it is, its owner decides: no stack frame each.
    fn tree(&mut self) -> Result<(), Stop> {
        let mut above: Vec<_> = self.node()?.into_iter().collect();
        while let Some(level) = above.last_mut() {
            if let Some(name) = level.names.next() {
                self.words(&["entry", "(", "name"])?;
                self.word(name.as_bytes())?;
                self.word(b"node")?;
                self.path.push(name);
                if let Some(inner) = self.node()? {
                    above.push(inner);
                    continue;
                }
            } else {
                self.names -= level.bytes;
                above.pop();
                self.word(b")")?;
                if above.is_empty() {
                    break;
                }
            }
            self.path.pop();
            self.word(b")")?;
        }
        Ok(())
    }

    /// All of it, or the beginning of a directory.
    fn node(&mut self) -> Result<Option<Level>, Stop> {
        match self.tree.find(&self.path)?.ok_or(Stop::Other)? {
            Found::File { file, bytes, is_executable } => {
                self.words(&["(", "type", "regular"])?;
                if is_executable {
                    self.words(&["executable", ""])?;
                }
                self.word(b"contents")?;
                self.contents(file, bytes)?;
            }
            Found::Link(leads) => {
                self.words(&["(", "type", "symlink", "target"])?;
                self.word(&leads)?;
            }
            Found::Directory(dir) => {
                self.words(&["(", "type", "directory"])?;
                return self.level(dir).map(Some);
            }
        }
        self.word(b")")?;
        Ok(None)
    }

    fn level(&mut self, mut dir: Dir) -> Result<Level, Stop> {
        let (mut names, mut bytes) = (Vec::new(), 0);
        while let Some(name) = next(&mut dir)? {
            bytes += size_of_val(&name) + name.len();
            if self.names + bytes > MAX_NAMES {
                return Err(Stop::Other);
            }
            names.push(name);
        }
        self.names += bytes;
        names.sort_unstable();
        Ok(Level { names: names.into_iter(), bytes })
    }

    /// It may grow or shrink meanwhile.
    fn contents(&mut self, mut file: impl Read, bytes: u64) -> Result<(), Stop> {
        self.length(bytes)?;
        self.take(bytes)?;
        let mut left = bytes;
        while left > 0 {
            let most = self.chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match file.read(&mut self.chunk[..most]) {
                Ok(0) => return Err(Stop::Other),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            self.hash.update(&self.chunk[..read]);
            self.out.write_all(&self.chunk[..read])?;
            left -= read as u64;
        }
        self.padding(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// What `nix-store --dump … | sha256sum` said.
    #[test]
    fn a_tree_has_the_hash_that_nix_gave_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let executable = |name: &str, text: &str| {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        fs::write(at("file"), "hello\n").unwrap();
        executable("run", "#!/bin/sh\n");
        symlink("../nowhere", at("link")).unwrap();
        fs::create_dir_all(at("dir/empty")).unwrap();
        fs::write(at("dir/a"), "a\n").unwrap();
        fs::write(at("dir/B"), "").unwrap();
        fs::write(at("dir/a b"), "x y").unwrap();
        symlink("/etc/passwd", at("dir/link")).unwrap();
        executable("dir/exe", "#!");
        let beneath = Beneath::open(dir.path()).unwrap();
        for (part, bytes, expected) in [
            ("file", 120, "1c37d01af40be2e80691de3cc3df44377a699afbb17c68f080964b2fd071fc13"),
            ("run", 160, "6283c1668260f903d1a895c0cd6b822fa4b68762bb0b17cedef2d39d97e26554"),
            ("link", 128, "75b2351cdb3c426c3defe44df0ba16b64757940a556b5104502d43d6194c361b"),
            ("dir", 1256, "f9bdf4296a6f94bac7ea57a72e672ea248e71626b713de2256ab9c9ea29f5eb5"),
        ] {
            let found = hash(&beneath, Path::new(part), bytes).unwrap().unwrap();
            let found = found.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            assert_eq!(found, expected, "{part}");
        }
    }

    /// As `nix-store --dump` has it.
    fn dumped(path: &Path) -> Option<Vec<u8>> {
        let output =
            std::process::Command::new("nix-store").arg("--dump").arg(path).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    #[test]
    fn a_tree_has_the_hash_that_nix_gives_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("sub/empty")).unwrap();
        for (n, name) in
            ["a", "B", "a.b", "a-b", "sub/\u{e9}", "sub/x y", "sub/z"].iter().enumerate()
        {
            fs::write(tree.join(name), vec![7; n * 4099]).unwrap();
        }
        fs::write(tree.join("large"), vec![1; CHUNK * 3 + 5]).unwrap();
        let mode = fs::Permissions::from_mode;
        fs::set_permissions(tree.join("a"), mode(0o100)).unwrap();
        fs::set_permissions(tree.join("B"), mode(0o655)).unwrap();
        symlink("/etc/passwd", tree.join("link")).unwrap();
        symlink("nowhere at all", tree.join("sub/dangling")).unwrap();
        let beneath = Beneath::open(dir.path()).unwrap();
        for part in ["tree", "tree/a", "tree/B", "tree/link", "tree/sub/empty", "tree/sub/z"] {
            let Some(nar) = dumped(&dir.path().join(part)) else {
                // Suites that need Nix say so.
                return;
            };
            let found = |bytes: u64| hash(&beneath, Path::new(part), bytes).unwrap();
            let expected = ring::digest::digest(&SHA256, &nar);
            let bytes = nar.len() as u64;
            assert_eq!(found(bytes).unwrap(), expected.as_ref(), "{part}");
            for other in [0, bytes - 1, bytes + 1, bytes + 8] {
                assert_eq!(found(other), None, "{part} of {other}");
            }
        }
        assert_eq!(hash(&beneath, Path::new("absent"), 1 << 20).unwrap(), None);
    }
}
