//! What each namespace's own sources have come to on this node: what it may name by its store path later.
//!
//! An empty file each, `<state-dir>/grants/<digest of the namespace>/<name of the path>`. One that is lost
//! means no more than that the source has to be named again. All functions block.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::lock::lock;
use crate::model::{StorePath, Tenant};

const DAY: Duration = Duration::from_hours(24);
/// What was not used for so long is forgotten.
const KEPT: Duration = Duration::from_hours(30 * 24);

#[derive(Debug)]
pub(super) struct Grants {
    dir: PathBuf,
    swept: Mutex<Option<SystemTime>>,
}

impl Grants {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, swept: Mutex::new(None) }
    }

    /// Whether it has the path; which is then used.
    pub(super) fn renew(&self, tenant: &Tenant, path: &StorePath) -> bool {
        let has = self.has(tenant, path);
        if has {
            self.note(tenant, path);
        }
        has
    }

    fn has(&self, tenant: &Tenant, path: &StorePath) -> bool {
        age(&self.file(tenant, path)).is_ok_and(|age| age <= KEPT)
    }

    /// From now on; what can't be noted is not.
    pub(super) fn note(&self, tenant: &Tenant, path: &StorePath) {
        let file = self.file(tenant, path);
        if age(&file).is_ok_and(|age| age < DAY) {
            return;
        }
        // Held, so that a directory that is swept meanwhile is made again.
        let mut swept = lock(&self.swept);
        let noted = file.parent().map_or(Ok(()), private_dir).and_then(|()| touch(&file));
        if let Err(error) = noted {
            tracing::warn!(file = %file.display(), %error,
                "what a namespace has built can't be noted: it can't name that by its store path");
        }
        let now = SystemTime::now();
        if swept.is_some_and(|then| now.duration_since(then).is_ok_and(|age| age < DAY)) {
            return;
        }
        *swept = Some(now);
        if let Err(error) = self.sweep() {
            tracing::warn!(dir = %self.dir.display(), %error, "can't look for what to forget");
        }
    }

    fn file(&self, tenant: &Tenant, path: &StorePath) -> PathBuf {
        let digest = Sha256::digest(tenant.to_string());
        self.dir.join(hex::encode(&digest[..12])).join(path.base_name())
    }

    fn sweep(&self) -> io::Result<()> {
        for namespace in fs::read_dir(&self.dir)?.flatten() {
            let files = fs::read_dir(namespace.path()).into_iter().flatten().flatten();
            for file in files.map(|file| file.path()) {
                if age(&file).is_ok_and(|age| age > KEPT) {
                    fs::remove_file(&file)?;
                }
            }
            drop(fs::remove_dir(namespace.path())); // it has others
        }
        Ok(())
    }
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn touch(file: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(file)?;
    file.set_times(FileTimes::new().set_modified(SystemTime::now()))
}

fn age(file: &Path) -> io::Result<Duration> {
    let modified = fs::symlink_metadata(file)?.modified()?;
    // One of the future, after the clock was set, is young.
    Ok(SystemTime::now().duration_since(modified).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(n: u32) -> StorePath {
        StorePath::parse(&format!("/nix/store/{n:0>32}-p")).unwrap()
    }

    #[test]
    fn each_namespace_has_its_own_and_what_is_old_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("grants");
        let (web, db) = (Tenant::namespace("web"), Tenant::namespace("db"));
        let grants = Grants::new(dir.clone());
        grants.note(&web, &path(1));
        grants.note(&web, &path(1));
        grants.note(&db, &path(2));
        let has = |grants: &Grants| {
            [(&web, 1), (&web, 2), (&db, 1), (&db, 2)].map(|(of, n)| grants.has(of, &path(n)))
        };
        assert_eq!(has(&grants), [true, false, false, true]);
        let old = FileTimes::new().set_modified(SystemTime::now() - KEPT - DAY);
        let set = |file: &Path| File::open(file).unwrap().set_times(old).unwrap();
        set(&grants.file(&web, &path(1)));
        set(&grants.file(&db, &path(2)));
        // Used again: young again. What is old is none, whether or not it was swept.
        grants.note(&db, &path(2));
        fs::write(dir.join("stray"), "").unwrap();
        let next = Grants::new(dir.clone());
        assert_eq!(has(&next), [false, false, false, true]);
        assert!(!next.renew(&web, &path(1)) && next.renew(&db, &path(2)));
        next.note(&db, &path(3));
        assert_eq!(has(&next), [false, false, false, true]);
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn what_cant_be_noted_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let grants = Grants::new(file);
        grants.note(&Tenant::local(), &path(1));
        assert!(!grants.has(&Tenant::local(), &path(1)));
    }
}
