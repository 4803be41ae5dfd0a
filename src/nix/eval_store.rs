//! Stores of tenants' own: where those evaluations work that must not see the node's.
//!
//! `<homes>/<whose>.own`: a store, shown to the evaluator as `/nix`, and a home with the fetchers' caches. It has
//! what the tenant's evaluations, or those with one secret, fetch and make, is nobody else's, and nothing is built
//! in it: what an evaluation comes to is copied to the node's store. One that grows too large, is not used for long, or is suspected to be broken is retired: who is in
//! it goes on, and with the last of them it is removed.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, FileTimes};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::NixError;
use super::error::io_error;

const SUFFIX: &str = ".own";
const RETIRED: &str = ".retired";
/// Bytes on disk.
const MOST: u64 = 4 << 30;
const IDLE: Duration = Duration::from_hours(24);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// All of them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct EvalStores(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    current: Mutex<HashMap<PathBuf, Arc<Store>>>,
    looked: Mutex<Option<Instant>>,
}

/// In use by who has it.
#[derive(Debug)]
pub(super) struct Store(Mutex<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    is_retired: bool,
}

impl Store {
    pub(super) fn nix(&self) -> PathBuf {
        self.path().join("nix")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    fn path(&self) -> PathBuf {
        lock(&self.0).path.clone()
    }

    /// The next evaluation begins a new one.
    fn retire(&self) {
        let mut place = lock(&self.0);
        if place.is_retired {
            return;
        }
        let mut aside = place.path.clone().into_os_string();
        aside.push(format!(".{}{RETIRED}", unique()));
        match fs::rename(&place.path, &aside) {
            Ok(()) => *place = Place { path: aside.into(), is_retired: true },
            Err(error) => {
                tracing::warn!(store = %place.path.display(), %error, "an evaluation store can't be retired");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let place = lock(&self.0);
        if place.is_retired {
            let path = place.path.clone();
            // It may hold much, and who drops it may be anywhere.
            std::thread::spawn(move || remove(&path));
        }
    }
}

impl EvalStores {
    /// Blocking. The store of whom this is the name, for as long as the result is held.
    pub(super) fn enter(&self, homes: &Path, name: &str, uid: u32) -> Result<Arc<Store>, NixError> {
        self.look_at_times(homes);
        let path = homes.join(format!("{name}{SUFFIX}"));
        let mut current = lock(&self.0.current);
        if fs::symlink_metadata(&path).is_err() {
            make(homes, &path, uid).map_err(|err| io_error("create", &path, err))?;
        }
        // When it was used last.
        let now = FileTimes::new().set_modified(SystemTime::now());
        let used = File::open(&path).and_then(|dir| dir.set_times(now));
        used.map_err(|err| io_error("use", &path, err))?;
        let fresh = || Arc::new(Store(Place { path: path.clone(), is_retired: false }.into()));
        Ok(current.entry(path.clone()).or_insert_with(fresh).clone())
    }

    /// Something may be wrong with it.
    pub(super) fn distrust(&self, store: &Store) {
        let path = store.path();
        let mut current = lock(&self.0.current);
        store.retire();
        current.remove(&path);
    }

    fn look_at_times(&self, homes: &Path) {
        let mut looked = lock(&self.0.looked);
        if looked.is_some_and(|then| then.elapsed() < LOOK_EVERY) {
            return;
        }
        *looked = Some(Instant::now());
        drop(looked);
        let (this, homes) = (self.clone(), homes.to_owned());
        std::thread::spawn(move || {
            if let Err(error) = this.look(&homes, MOST) {
                tracing::warn!(dir = %homes.display(), %error, "can't look at the evaluation stores");
            }
        });
    }

    /// Retires what is too large or idle, and removes what a process before this one has retired.
    fn look(&self, homes: &Path, most: u64) -> io::Result<()> {
        let ours = format!(".{:016x}-", *PROCESS);
        for entry in fs::read_dir(homes)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(RETIRED) {
                if !name.contains(&ours) {
                    remove(&path);
                }
                continue;
            }
            if !name.ends_with(SUFFIX) {
                continue;
            }
            // It may be gone by now.
            let Ok(used) = fs::symlink_metadata(&path).and_then(|found| found.modified()) else {
                continue;
            };
            let is_idle = SystemTime::now().duration_since(used).is_ok_and(|age| age > IDLE);
            let is_large = || size(&path, most) > most;
            if is_idle || is_large() {
                tracing::info!(store = %path.display(), is_idle, "an evaluation store is removed");
                let mut current = lock(&self.0.current);
                let fresh =
                    || Arc::new(Store(Place { path: path.clone(), is_retired: false }.into()));
                current.remove(&path).unwrap_or_else(fresh).retire();
            }
        }
        Ok(())
    }
}

/// Of this process, and of no other that there was: a pid comes again, in a container at once.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// All of it at once, so that what the evaluators own is never made below what they own.
fn make(homes: &Path, path: &Path, uid: u32) -> io::Result<()> {
    let dir = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    dir(homes)?;
    let new = path.with_extension(format!("{}{RETIRED}", unique()));
    for part in ["nix/store", "home"] {
        dir(&new.join(part))?;
    }
    for part in ["nix", "nix/store", "home"] {
        chown(new.join(part), Some(uid), Some(uid))?;
    }
    fs::rename(&new, path)
}

/// Bytes on disk, or some number above `most`. What can't be read counts nothing.
fn size(dir: &Path, most: u64) -> u64 {
    const BLOCK: u64 = 512;
    let (mut bytes, mut todo) = (0, vec![dir.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * BLOCK;
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
        if bytes > most {
            break;
        }
    }
    bytes
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(store = %path.display(), %error, "an evaluation store can't be removed");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustix::process::getuid;

    use super::*;

    fn gone(path: &Path) -> bool {
        fs::symlink_metadata(path).is_err()
    }

    fn wait(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(20), "waited in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_store_is_removed_with_its_last_user_and_the_next_one_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let stores = EvalStores::default();
        let enter = || stores.enter(dir.path(), "web", getuid().as_raw()).unwrap();
        let first = enter();
        assert!(Arc::ptr_eq(&first, &enter()));
        fs::write(first.path().join("mark"), "x").unwrap();
        stores.distrust(&first);
        // Twice is once.
        stores.distrust(&first);
        let second = enter();
        assert!(gone(&second.path().join("mark")) && !gone(&first.path().join("mark")));
        let old = first.path();
        drop(first);
        wait(|| gone(&old));
        assert!(!gone(&second.path()));
    }

    #[test]
    fn what_is_large_or_idle_goes_and_what_a_dead_process_left_too() {
        let dir = tempfile::tempdir().unwrap();
        let stores = EvalStores::default();
        let enter = |name: &str| stores.enter(dir.path(), name, getuid().as_raw()).unwrap().path();
        let (small, large, idle) = (enter("small"), enter("large"), enter("idle"));
        fs::write(large.join("file"), vec![1; 1 << 20]).unwrap();
        let old = FileTimes::new().set_modified(SystemTime::now() - 2 * IDLE);
        File::open(&idle).unwrap().set_times(old).unwrap();
        let left = dir.path().join(format!("x.own.{:016x}-0{RETIRED}", *PROCESS ^ 1));
        fs::create_dir(&left).unwrap();
        stores.look(dir.path(), 1 << 19).unwrap();
        wait(|| gone(&large) && gone(&idle) && gone(&left));
        assert!(!gone(&small));
        wait(|| fs::read_dir(dir.path()).unwrap().count() == 1);
        // As if nothing had been.
        assert_eq!(enter("large"), large);
        assert!(!gone(&large.join("nix/store")) && !gone(&large.join("home")));
    }
}
