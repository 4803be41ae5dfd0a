//! Directories of tenants, in which evaluations write.
//!
//! - `<homes>/<tenant>`: a home with the fetchers' caches, of who sees the node's store.
//! - `<homes>/<tenant>-<whose>.own`: a store, shown to the evaluator as `/nix`, and a home, of who does not. It has
//!   what the tenant's evaluations, or those with one secret, fetch and make, is nobody else's, and nothing is built
//!   in it: what an evaluation comes to is copied to the node's store.
//!
//! A tenant with more on disk than it may have ends its evaluations ([`super::tenant_disk`]). What is too large, not
//! used for long, or suspected to be broken is retired: who is in it goes on, and with the last of them it is removed.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::lock::lock;
use crate::model::Vouched;

use super::NixError;
use super::beneath::Beneath;
use super::error::io_error;
use super::evaluator::Evaluator;
use super::tenant_disk::{Chores, Measure};

const SUFFIX: &str = ".own";
const RETIRED: &str = ".retired";
/// Paths of a store that are known to be in it.
const MOST_SHOWN: usize = 1 << 16;

/// All of them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct TenantDirs(pub(super) Arc<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    current: Mutex<HashMap<PathBuf, Arc<TenantDir>>>,
    /// Retired ones that somebody is in.
    pub(super) held: Mutex<HashSet<PathBuf>>,
    pub(super) chores: Mutex<Chores>,
    measures: Mutex<HashMap<String, Weak<Measure>>>,
}

/// Where all of them are, and how many bytes a tenant may have there.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) homes: PathBuf,
    pub(super) disk: u64,
}

/// In use by who has it.
#[derive(Debug)]
pub(super) struct TenantDir {
    pub(super) all: Weak<Inner>,
    pub(super) at: At,
    pub(super) tenant: String,
    pub(super) measure: Arc<Measure>,
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
    pub(super) fn nix(&self) -> PathBuf {
        self.path().join("nix")
    }

    pub(super) fn home(&self) -> PathBuf {
        if self.is_own { self.path().join("home") } else { self.path() }
    }

    pub(super) fn path(&self) -> PathBuf {
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

    /// The next evaluation begins a new one.
    fn retire(&self, held: &Mutex<HashSet<PathBuf>>) {
        let mut place = lock(&self.place);
        if place.is_retired {
            return;
        }
        let aside = aside(&place.path);
        lock(held).insert(aside.clone());
        match fs::rename(&place.path, &aside) {
            Ok(()) => *place = Place { path: aside, is_retired: true },
            Err(error) => {
                lock(held).remove(&aside);
                tracing::warn!(dir = %place.path.display(), %error, "a tenant's directory can't be retired");
            }
        }
    }
}

impl Drop for TenantDir {
    fn drop(&mut self) {
        let place = lock(&self.place);
        if let (true, Some(all)) = (place.is_retired, self.all.upgrade()) {
            lock(&all.held).remove(&place.path);
            // It may hold much, and who drops it may be anywhere.
            TenantDirs(all).tidy(&self.at, true, None);
        }
    }
}

impl TenantDirs {
    /// Blocking. The tenant's home, for as long as the result is held.
    pub(super) fn home(&self, at: &Evaluator, tenant: &str) -> Result<Arc<TenantDir>, NixError> {
        self.enter(at, at.homes.join(tenant))
    }

    /// Blocking. The same with a store of its own, of all the tenant's or of who has one secret.
    pub(super) fn own(
        &self,
        at: &Evaluator,
        tenant: &str,
        whose: &str,
    ) -> Result<Arc<TenantDir>, NixError> {
        self.enter(at, at.homes.join(format!("{tenant}-{whose}{SUFFIX}")))
    }

    fn enter(&self, at: &Evaluator, path: PathBuf) -> Result<Arc<TenantDir>, NixError> {
        let (uid, at) = (at.uid, At { homes: at.homes.clone(), disk: at.disk });
        self.tidy(&at, false, None);
        let mut current = lock(&self.0.current);
        if fs::symlink_metadata(&path).is_err() {
            self.make(&at.homes, &path, uid).map_err(|err| io_error("create", &path, err))?;
        }
        // When it was used last.
        let now = FileTimes::new().set_modified(SystemTime::now());
        let used = File::open(&path).and_then(|dir| dir.set_times(now));
        used.map_err(|err| io_error("use", &path, err))?;
        Ok(current.entry(path).or_insert_with_key(|path| self.at(&at, path.clone())).clone())
    }

    fn at(&self, at: &At, path: PathBuf) -> Arc<TenantDir> {
        let tenant = tenant_of(&path);
        let mut measures = lock(&self.0.measures);
        measures.retain(|_, measure| measure.strong_count() > 0);
        let measure = measures.get(&tenant).and_then(Weak::upgrade).unwrap_or_default();
        measures.insert(tenant.clone(), Arc::downgrade(&measure));
        drop(measures);
        Arc::new(TenantDir {
            all: Arc::downgrade(&self.0),
            at: at.clone(),
            tenant,
            measure,
            is_own: is_own(&path),
            place: Mutex::new(Place { path, is_retired: false }),
            shown: Mutex::default(),
        })
    }

    /// Something may be wrong with it.
    pub(super) fn distrust(&self, dir: &Arc<TenantDir>) {
        let mut current = lock(&self.0.current);
        let path = dir.path();
        dir.retire(&self.0.held);
        if current.get(&path).is_some_and(|one| Arc::ptr_eq(one, dir)) {
            current.remove(&path);
        }
    }

    /// The same by its path, whoever is in it.
    pub(super) fn retire(&self, at: &At, path: &Path) {
        let mut current = lock(&self.0.current);
        let dir = current.remove(path).unwrap_or_else(|| self.at(at, path.to_owned()));
        dir.retire(&self.0.held);
    }

    /// After an evaluation: the next one is to have room.
    pub(super) fn leave(&self, dir: &TenantDir) {
        self.tidy(&dir.at, true, Some(dir.tenant.clone()));
    }

    /// All of it at once, so that what the evaluators own is never made below what they own.
    fn make(&self, homes: &Path, path: &Path, uid: u32) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(homes)?;
        let new = aside(path);
        lock(&self.0.held).insert(new.clone());
        let made = make_parts(&new, is_own(path), uid);
        let made = made.and_then(|()| fs::rename(&new, path));
        lock(&self.0.held).remove(&new);
        made
    }
}

fn make_parts(new: &Path, is_own: bool, uid: u32) -> io::Result<()> {
    let dir = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    if !is_own {
        dir(new)?;
        return chown(new, Some(uid), Some(uid));
    }
    for part in ["home", "nix/store", "nix/var"] {
        dir(&new.join(part))?;
    }
    for part in ["home", "nix/var"] {
        chown(new.join(part), Some(uid), Some(uid))?;
    }
    // Programs of the node's are shown in it. An evaluator moves nothing there that is not its own, or it could
    // put others in their place.
    fs::set_permissions(new.join("nix"), Permissions::from_mode(0o755))?;
    chown(new.join("nix/store"), None, Some(uid))?;
    fs::set_permissions(new.join("nix/store"), Permissions::from_mode(0o1775))
}

/// Another name for it, which is nobody's.
fn aside(path: &Path) -> PathBuf {
    let mut aside = path.to_owned().into_os_string();
    aside.push(format!(".{}{RETIRED}", unique()));
    aside.into()
}

/// Whether a directory is a store of a tenant's own.
pub(super) fn is_own(path: &Path) -> bool {
    path.to_string_lossy().ends_with(SUFFIX)
}

pub(super) fn is_retired(path: &Path) -> bool {
    path.to_string_lossy().ends_with(RETIRED)
}

/// By the name of one of its directories.
pub(super) fn tenant_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(['-', '.']).next().unwrap_or_default().to_owned()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::getuid;
    use tokio::time::Instant;

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
        for is_own in [true, false] {
            let enter = || if is_own { dirs.own(&at, "web", "x") } else { dirs.home(&at, "web") };
            let enter = || enter().unwrap();
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

    /// A tenant has one bound, whatever secrets it has.
    #[test]
    fn what_is_large_or_idle_goes_and_what_a_dead_process_left_too() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        let own = |tenant: &str, whose: &str| dirs.own(&at, tenant, whose).unwrap();
        let write =
            |dir: &Path, kib: usize| fs::write(dir.join("file"), vec![1; kib << 10]).unwrap();
        let age = |dir: &Path, hours: u64| {
            let then = SystemTime::now() - Duration::from_hours(hours);
            File::open(dir).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
        };
        let [small, older, newer, idle] = [("b", "x"), ("a", "x"), ("a", "y"), ("b", "y")]
            .map(|(tenant, whose)| own(tenant, whose));
        let [home, large] = ["a", "c"].map(|tenant| dirs.home(&at, tenant).unwrap());
        for dir in [&older, &newer] {
            write(&dir.path(), 400);
        }
        write(&home.path(), 400);
        write(&large.path(), 1000);
        age(&older.path(), 1);
        for dir in [&idle, &home] {
            age(&dir.path(), 48);
        }
        let paths = [&small, &newer, &home, &older, &large, &idle].map(|dir| dir.path());
        let left = dir.path().join(format!("x.own.0-0{RETIRED}"));
        fs::create_dir(&left).unwrap();
        for tenant in ["a", "c"] {
            dirs.trim(&At { homes: at.homes.clone(), disk: at.disk }, tenant).unwrap();
        }
        drop([small, older, newer, idle, home, large]);
        dirs.tidy(&At { homes: at.homes.clone(), disk: at.disk }, true, None);
        wait(|| paths[3..].iter().all(|dir| gone(dir)) && gone(&left));
        assert!(paths[..3].iter().all(|dir| !gone(dir)));
        wait(|| fs::read_dir(dir.path()).unwrap().count() == 3);
        // As if nothing had been.
        let again = own("a", "x");
        assert!(again.path() == paths[3] && !gone(&again.nix().join("store")));
    }

    #[test]
    fn who_leaves_much_leaves_nothing_and_who_is_in_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        let enter = || dirs.home(&at, "web").unwrap();
        let (first, other) = (enter(), enter());
        let begun = other.home();
        fs::write(first.home().join("file"), vec![1; 1 << 20]).unwrap();
        dirs.leave(&first);
        drop(first);
        wait(|| gone(&begun));
        assert!(!gone(&other.home().join("file")) && gone(&enter().home().join("file")));
        let left = other.home();
        drop(other);
        wait(|| gone(&left));
    }

    #[tokio::test(start_paused = true)]
    async fn what_grows_in_use_is_noticed_wherever_it_is_the_tenants() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, at) = (TenantDirs::default(), evaluator(dir.path()));
        let minutes = Duration::from_secs(120);
        let (used, other) =
            (dirs.own(&at, "web", "x").unwrap(), dirs.own(&at, "web", "y").unwrap());
        let neighbour = dirs.home(&at, "db").unwrap();
        fs::write(neighbour.home().join("file"), vec![1; 2 << 20]).unwrap();
        tokio::time::timeout(minutes, used.outgrown()).await.unwrap_err();
        // Half here, half there, and there it was taken aside.
        dirs.distrust(&other);
        for dir in [&used, &other] {
            fs::write(dir.nix().join("store/file"), vec![1; 600 << 10]).unwrap();
        }
        tokio::time::timeout(minutes, used.outgrown()).await.unwrap().unwrap();
        // Nobody is in there any more.
        drop(other);
        tokio::time::timeout(minutes, used.outgrown()).await.unwrap_err();
        fs::remove_dir_all(dir.path()).unwrap();
        let error = tokio::time::timeout(minutes, used.outgrown()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn where_programs_are_shown_an_evaluator_moves_only_what_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = evaluator(dir.path());
        let own = TenantDirs::default().own(&at, "web", "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&own.nix()), 0o755);
        assert_eq!(mode(&own.nix().join("store")), 0o1775);
        assert_eq!(mode(&own.path()), 0o700);
    }
}
