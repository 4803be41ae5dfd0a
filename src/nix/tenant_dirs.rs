//! Directories of tenants, in which evaluations write.
//!
//! - `<homes>/<whose>`: a home with the fetchers' caches, of who sees the node's store.
//! - `<homes>/<whose>.own`: a store, shown to the evaluator as `/nix`, and a home, of who does not. It has what the
//!   tenant's evaluations, or those with one secret, fetch and make, is nobody else's, and nothing is built in it:
//!   what an evaluation comes to is copied to the node's store.
//!
//! One that has more on disk than it may ends the evaluations in it. One that is half as large, is not used for
//! long, or is suspected to be broken is retired: who is in it goes on, and with the last of them it is removed.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::lock::lock;
use crate::model::Vouched;

use super::NixError;
use super::beneath::{self, Beneath};
use super::error::io_error;
use super::evaluator::Evaluator;

const SUFFIX: &str = ".own";
const RETIRED: &str = ".retired";
const IDLE: Duration = Duration::from_hours(24);
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at how large a directory is in which somebody evaluates: so many times what the last one took.
const PAUSES: u32 = 20;
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Paths of a store that are known to be in it.
const MOST_SHOWN: usize = 1 << 16;

/// All of them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct TenantDirs(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    current: Mutex<HashMap<PathBuf, Arc<TenantDir>>>,
    looked: Mutex<Option<Instant>>,
}

/// In use by who has it.
#[derive(Debug)]
pub(super) struct TenantDir {
    place: Mutex<Place>,
    is_own: bool,
    shown: Mutex<HashSet<[u8; 32]>>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    is_retired: bool,
}

impl TenantDir {
    fn at(path: PathBuf) -> Arc<Self> {
        let is_own = path.to_string_lossy().ends_with(SUFFIX);
        let place = Mutex::new(Place { path, is_retired: false });
        Arc::new(Self { place, is_own, shown: Mutex::default() })
    }

    pub(super) fn nix(&self) -> PathBuf {
        self.path().join("nix")
    }

    pub(super) fn home(&self) -> PathBuf {
        if self.is_own { self.path().join("home") } else { self.path() }
    }

    fn path(&self) -> PathBuf {
        lock(&self.place).path.clone()
    }

    /// For looks at what the tenant has there.
    pub(super) fn open(&self) -> io::Result<Beneath> {
        Beneath::open(&lock(&self.place).path)
    }

    /// Whether this was seen in its store.
    pub(super) fn has_shown(&self, path: &Vouched) -> bool {
        lock(&self.shown).contains(&digest(path))
    }

    pub(super) fn shows(&self, path: &Vouched) {
        let mut shown = lock(&self.shown);
        if shown.len() >= MOST_SHOWN {
            shown.clear();
        }
        shown.insert(digest(path));
    }

    /// Until it has more than `most` bytes on disk.
    pub(super) async fn outgrown(self: Arc<Self>, most: u64) {
        let mut pause = PAUSE.0;
        loop {
            tokio::time::sleep(pause).await;
            let (this, began) = (self.clone(), Instant::now());
            let size = tokio::task::spawn_blocking(move || this.size(most));
            if size.await.is_ok_and(|size| size > most) {
                return;
            }
            pause = (began.elapsed() * PAUSES).clamp(PAUSE.0, PAUSE.1);
        }
    }

    /// Blocking.
    fn size(&self, most: u64) -> u64 {
        let size = self.open().and_then(|tree| tree.disk(most));
        size.unwrap_or_else(|error| {
            tracing::warn!(dir = %self.path().display(), %error, "can't tell how large it is");
            0
        })
    }

    /// The next evaluation begins a new one.
    fn retire(&self) {
        let mut place = lock(&self.place);
        if place.is_retired {
            return;
        }
        let mut aside = place.path.clone().into_os_string();
        aside.push(format!(".{}{RETIRED}", unique()));
        match fs::rename(&place.path, &aside) {
            Ok(()) => *place = Place { path: aside.into(), is_retired: true },
            Err(error) => {
                tracing::warn!(dir = %place.path.display(), %error, "a tenant's directory can't be retired");
            }
        }
    }
}

impl Drop for TenantDir {
    fn drop(&mut self) {
        let place = lock(&self.place);
        if place.is_retired {
            let path = place.path.clone();
            // It may hold much, and who drops it may be anywhere.
            std::thread::spawn(move || remove(&path));
        }
    }
}

impl TenantDirs {
    /// Blocking. The home of whom this is the name, for as long as the result is held.
    pub(super) fn home(&self, at: &Evaluator, name: &str) -> Result<Arc<TenantDir>, NixError> {
        self.enter(at, at.homes.join(name))
    }

    /// Blocking. The same with a store of its own.
    pub(super) fn own(&self, at: &Evaluator, name: &str) -> Result<Arc<TenantDir>, NixError> {
        self.enter(at, at.homes.join(format!("{name}{SUFFIX}")))
    }

    fn enter(&self, at: &Evaluator, path: PathBuf) -> Result<Arc<TenantDir>, NixError> {
        self.look_at_times(at);
        let mut current = lock(&self.0.current);
        if fs::symlink_metadata(&path).is_err() {
            make(&at.homes, &path, at.uid).map_err(|err| io_error("create", &path, err))?;
        }
        // When it was used last.
        let now = FileTimes::new().set_modified(SystemTime::now());
        let used = File::open(&path).and_then(|dir| dir.set_times(now));
        used.map_err(|err| io_error("use", &path, err))?;
        Ok(current.entry(path).or_insert_with_key(|path| TenantDir::at(path.clone())).clone())
    }

    /// Something may be wrong with it.
    pub(super) fn distrust(&self, dir: &TenantDir) {
        let path = dir.path();
        let mut current = lock(&self.0.current);
        dir.retire();
        current.remove(&path);
    }

    /// After an evaluation: the next one is to have room.
    pub(super) fn leave(&self, dir: Arc<TenantDir>, most: u64) {
        let this = self.clone();
        // It may hold much.
        std::thread::spawn(move || {
            if dir.size(most / 2) > most / 2 {
                tracing::info!(dir = %dir.path().display(), "a tenant's directory is large: it is removed");
                this.distrust(&dir);
            }
        });
    }

    fn look_at_times(&self, at: &Evaluator) {
        let mut looked = lock(&self.0.looked);
        if looked.is_some_and(|then| then.elapsed() < LOOK_EVERY) {
            return;
        }
        *looked = Some(Instant::now());
        drop(looked);
        let (this, homes, most) = (self.clone(), at.homes.clone(), at.disk / 2);
        std::thread::spawn(move || {
            if let Err(error) = this.look(&homes, most) {
                tracing::warn!(dir = %homes.display(), %error, "can't look at the tenants' directories");
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
            // It may be gone by now.
            let Ok(used) = fs::symlink_metadata(&path).and_then(|found| found.modified()) else {
                continue;
            };
            let is_idle = SystemTime::now().duration_since(used).is_ok_and(|age| age > IDLE);
            let is_large = || Beneath::open(&path)?.disk(most).map(|size| size > most);
            if is_idle || is_large().unwrap_or(false) {
                tracing::info!(dir = %path.display(), is_idle, "a tenant's directory is removed");
                let mut current = lock(&self.0.current);
                let dir = current.remove(&path).unwrap_or_else(|| TenantDir::at(path));
                dir.retire();
            }
        }
        Ok(())
    }
}

fn digest(path: &Vouched) -> [u8; 32] {
    Sha256::new().chain_update(path.sha256).chain_update(path.path.base_name()).finalize().into()
}

/// Of this process, and of no other that there was: a pid comes again, in a container at once.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// All of it at once, so that what the evaluators own is never made below what they own.
fn make(homes: &Path, path: &Path, uid: u32) -> io::Result<()> {
    let dir = |path: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(path);
    dir(homes, 0o700)?;
    let new = path.with_extension(format!("{}{RETIRED}", unique()));
    if !path.to_string_lossy().ends_with(SUFFIX) {
        dir(&new, 0o700)?;
        chown(&new, Some(uid), Some(uid))?;
        return fs::rename(&new, path);
    }
    for part in ["home", "nix/store", "nix/var"] {
        dir(&new.join(part), 0o700)?;
    }
    for part in ["home", "nix/var"] {
        chown(new.join(part), Some(uid), Some(uid))?;
    }
    // Programs of the node's are shown in it. An evaluator moves nothing there that is not its own, or it could
    // put others in their place.
    fs::set_permissions(new.join("nix"), Permissions::from_mode(0o755))?;
    chown(new.join("nix/store"), None, Some(uid))?;
    fs::set_permissions(new.join("nix/store"), Permissions::from_mode(0o1775))?;
    fs::rename(&new, path)
}

fn remove(path: &Path) {
    if let Err(error) = beneath::remove(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %path.display(), %error, "a tenant's directory can't be removed");
    }
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

    fn evaluator(homes: &Path) -> Evaluator {
        Evaluator { uid: getuid().as_raw(), disk: 1 << 20, ..Evaluator::new(homes.to_owned()) }
    }

    #[test]
    fn one_is_removed_with_its_last_user_and_the_next_one_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        for enter in [TenantDirs::own, TenantDirs::home] {
            let enter = || enter(&dirs, &at, "web").unwrap();
            let first = enter();
            assert!(Arc::ptr_eq(&first, &enter()));
            fs::write(first.path().join("mark"), "x").unwrap();
            dirs.distrust(&first);
            // Twice is once.
            dirs.distrust(&first);
            let second = enter();
            assert!(gone(&second.path().join("mark")) && !gone(&first.path().join("mark")));
            let old = first.path();
            drop(first);
            wait(|| gone(&old));
            assert!(!gone(&second.path()));
        }
    }

    #[test]
    fn what_is_large_or_idle_goes_and_what_a_dead_process_left_too() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        let enter = |name: &str| dirs.own(&at, name).unwrap().path();
        let home = |name: &str| dirs.home(&at, name).unwrap().path();
        let (small, kept) = (enter("small"), home("small"));
        let (large, idle) = ([enter("large"), home("large")], [enter("idle"), home("idle")]);
        let old = FileTimes::new().set_modified(SystemTime::now() - 2 * IDLE);
        for (large, idle) in large.iter().zip(&idle) {
            fs::write(large.join("file"), vec![1; 1 << 20]).unwrap();
            File::open(idle).unwrap().set_times(old).unwrap();
        }
        let left = dir.path().join(format!("x.own.{:016x}-0{RETIRED}", *PROCESS ^ 1));
        fs::create_dir(&left).unwrap();
        dirs.look(dir.path(), 1 << 19).unwrap();
        wait(|| large.iter().chain(&idle).all(|dir| gone(dir)) && gone(&left));
        assert!(!gone(&small) && !gone(&kept));
        wait(|| fs::read_dir(dir.path()).unwrap().count() == 2);
        // As if nothing had been.
        assert_eq!(enter("large"), large[0]);
        assert!(!gone(&large[0].join("nix/store")) && !gone(&large[0].join("home")));
    }

    #[test]
    fn who_leaves_much_leaves_nothing_and_who_is_in_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        let enter = || dirs.home(&at, "web").unwrap();
        let (first, other) = (enter(), enter());
        let begun = other.home();
        fs::write(first.home().join("file"), vec![1; 1 << 20]).unwrap();
        dirs.leave(first, 1 << 30);
        dirs.leave(enter(), at.disk);
        wait(|| gone(&begun));
        assert!(!gone(&other.home().join("file")) && gone(&enter().home().join("file")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_grows_in_use_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        let used = dirs.own(&at, "web").unwrap();
        let grows = used.clone().outgrown(at.disk);
        tokio::pin!(grows);
        let minute = Duration::from_secs(60);
        tokio::time::timeout(minute, &mut grows).await.unwrap_err();
        // Also where it was taken aside.
        dirs.distrust(&used);
        fs::write(used.nix().join("store/file"), vec![1; 1 << 20]).unwrap();
        tokio::time::timeout(minute, &mut grows).await.unwrap();
    }

    #[test]
    fn where_programs_are_shown_an_evaluator_moves_only_what_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = evaluator(dir.path());
        let own = TenantDirs::default().own(&at, "web").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&own.nix()), 0o755);
        assert_eq!(mode(&own.nix().join("store")), 0o1775);
        assert_eq!(mode(&own.path()), 0o700);
    }
}
