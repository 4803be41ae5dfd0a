//! When paths were used last, as far as that is known: publishes, builds and uploads tell.
//!
//! A small SQLite file of roots of closures, since what a closure needs is as young as the closure. It is
//! never a reason to delete what it does not know: a file that was lost, or is new, makes all that is older
//! than itself as young as itself.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use super::index::{BUSY, born, is_none, open, read, remove_with_log, write};
use crate::lock::lock;
use crate::model::{StoreGraph, StorePath};

/// Tells seconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock.
pub fn wall_clock() -> WallClock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()))
}

/// What is known at one moment, in seconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    pub known: HashMap<StorePath, u64>,
    /// Since when uses are noted: nothing is known to be unused for longer.
    pub since: u64,
}

impl Uses {
    /// `registered`: when the path came.
    pub fn of(&self, path: &StorePath, registered: u64) -> u64 {
        self.known.get(path).copied().unwrap_or(0).max(registered).max(self.since)
    }
}

/// The index; cheap to clone. What is noted counts at once, and survives the process after a flush.
#[derive(Clone)]
pub struct Used(Arc<Inner>);

struct Inner {
    file: PathBuf,
    now: WallClock,
    pending: Mutex<HashMap<StorePath, u64>>,
    /// `None`: it can't be had for now, and what is noted is in memory alone.
    open: Mutex<Option<Connection>>,
    /// It was said that it can't be had, or is behind.
    told: AtomicBool,
    since: AtomicU64,
    clock: Leaps,
}

/// Whether the clock was set between two looks at it, or the machine slept: ages across that say nothing.
#[derive(Debug)]
struct Leaps(Mutex<(u64, Instant)>);

impl Leaps {
    /// Seconds by which two clocks may go apart.
    const APART: u64 = 60;

    fn new(now: u64) -> Self {
        Self(Mutex::new((now, Instant::now())))
    }

    fn leaps(&self, now: u64) -> bool {
        let mut last = lock(&self.0);
        let expected = last.0 + last.1.elapsed().as_secs();
        *last = (now, Instant::now());
        now.abs_diff(expected) > Self::APART
    }
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Used").field(&self.0.file).finish()
    }
}

impl Used {
    /// Blocking. One that is none is put aside. One that can't be had for another reason is tried again at
    /// each flush.
    pub fn open(file: &Path, now: WallClock) -> Self {
        let moment = now();
        let opened = open(file, moment).or_else(|error| {
            if !is_none(&error) {
                return Err(error);
            }
            let aside = file.with_extension("unreadable");
            tracing::warn!(file = %file.display(), %error, aside = %aside.display(),
                "when paths were used last can't be read; what is there counts as just used");
            remove_with_log(&aside);
            drop(fs::rename(file, &aside)); // if that fails, the next try says why
            remove_with_log(file);
            open(file, moment)
        });
        let (open, since) = match opened {
            Ok((connection, since)) => (Some(connection), since),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error,
                    "when paths are used can't be noted for now; what is there counts as just used");
                (None, moment)
            }
        };
        Self::new(file, open, since, HashMap::new(), now)
    }

    /// What is known already, and noted nowhere.
    pub fn fixed(Uses { known, since }: Uses, now: WallClock) -> Self {
        Self::new(Path::new(""), None, since, known, now)
    }

    fn new(
        file: &Path,
        open: Option<Connection>,
        since: u64,
        pending: HashMap<StorePath, u64>,
        now: WallClock,
    ) -> Self {
        let clock = Leaps::new(now());
        Self(Arc::new(Inner {
            file: file.to_owned(),
            now,
            pending: pending.into(),
            told: open.is_none().into(),
            open: open.into(),
            since: since.into(),
            clock,
        }))
    }

    pub fn now(&self) -> u64 {
        (self.0.now)()
    }

    /// Used at this moment.
    pub fn note(&self, path: &StorePath) {
        self.note_at(path, self.now());
    }

    /// Used until `idle` ago.
    pub fn note_idle(&self, path: &StorePath, idle: Duration) {
        self.note_at(path, self.now().saturating_sub(idle.as_secs()));
    }

    fn note_at(&self, path: &StorePath, at: u64) {
        let mut pending = lock(&self.0.pending);
        let known = pending.entry(path.clone()).or_default();
        *known = at.max(*known);
    }

    /// Blocking. Writes what was noted. What can't be written is kept in memory.
    pub fn flush(&self) {
        let mut open = lock(&self.0.open);
        if open.is_none() && !self.0.file.as_os_str().is_empty() {
            *open = self.open_late();
        }
        let Some(connection) = &mut *open else { return };
        let noted = std::mem::take(&mut *lock(&self.0.pending));
        if noted.is_empty() {
            return;
        }
        let written = write(connection, &noted);
        let told = self.0.told.swap(written.is_err(), Ordering::Relaxed);
        if let Err(error) = written {
            if !told {
                tracing::warn!(file = %self.0.file.display(), %error, "when paths were used is behind");
            }
            for (path, at) in noted {
                self.note_at(&path, at);
            }
        }
    }

    /// What was there before this process is as young as it was taken to be.
    fn open_late(&self) -> Option<Connection> {
        let file = &self.0.file;
        let (connection, _) = open(file, self.0.since.load(Ordering::Relaxed)).ok()?;
        tracing::info!(file = %file.display(), "when paths are used is noted again");
        Some(connection)
    }

    /// Blocking. All that is known.
    pub fn all(&self) -> Uses {
        if self.0.clock.leaps(self.now()) {
            tracing::warn!("the clock was set: what is there counts as just used");
            self.0.since.fetch_max(self.now(), Ordering::Relaxed);
        }
        let since = self.0.since.load(Ordering::Relaxed);
        let mut uses = Uses { known: HashMap::new(), since };
        if let Some(connection) = &*lock(&self.0.open) {
            match read(connection) {
                Ok(known) => uses.known = known,
                Err(error) => {
                    tracing::warn!(file = %self.0.file.display(), %error,
                        "when paths were used last can't be read; what is there counts as just used");
                    uses.since = self.now();
                }
            }
        }
        for (path, at) in lock(&self.0.pending).iter() {
            let known = uses.known.entry(path.clone()).or_default();
            *known = (*known).max(*at);
        }
        uses
    }

    /// Blocking. Forgets paths that are gone; not those of a moment ago, which may be on their way.
    pub fn forget_gone(&self, uses: &Uses, graph: &StoreGraph) {
        const YOUNG: u64 = 3600;
        let before = self.now().saturating_sub(YOUNG);
        let gone =
            uses.known.iter().filter(|(path, at)| **at < before && graph.find(path).is_none());
        let gone: Vec<&StorePath> = gone.map(|(path, _)| path).collect();
        lock(&self.0.pending).retain(|path, at| *at >= before || graph.find(path).is_some());
        let mut open = lock(&self.0.open);
        let Some(connection) = &mut *open else { return };
        let remove = |connection: &mut Connection| -> rusqlite::Result<()> {
            let all = connection.transaction()?;
            for path in &gone {
                all.prepare_cached("delete from used where path = ?1")?
                    .execute([path.to_string()])?;
            }
            all.commit()
        };
        if !gone.is_empty()
            && let Err(error) = remove(connection)
        {
            tracing::warn!(file = %self.0.file.display(), %error, "can't forget paths that are gone");
        }
    }
}

/// Blocking. The index of a node or a cache that may be running, to be read only. `Ok(None)`: there is none.
pub fn uses_in(file: &Path) -> rusqlite::Result<Option<Uses>> {
    let is_none = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    if fs::symlink_metadata(file).is_err_and(is_none) {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    Ok(Some(Uses { known: read(&connection)?, since: born(&connection)? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Registered;

    fn path(n: u32) -> StorePath {
        StorePath::parse(&format!("/nix/store/{n:0>32}-p")).unwrap()
    }

    /// A clock that is set by hand.
    fn clock(at: u64) -> (Arc<AtomicU64>, WallClock) {
        let time = Arc::new(AtomicU64::new(at));
        let told = time.clone();
        (time, Arc::new(move || told.load(Ordering::Relaxed)))
    }

    #[test]
    fn what_was_noted_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("used.sqlite");
        let (time, now) = clock(100);
        let used = Used::open(&file, now.clone());
        time.store(150, Ordering::Relaxed);
        used.note(&path(1));
        used.note_idle(&path(2), Duration::from_secs(30));
        // What is noted late is no younger.
        used.note_idle(&path(1), Duration::from_secs(50));
        let before = used.all();
        used.flush();
        // As after a kill: nothing was closed.
        let again = Used::open(&file, now);
        for uses in [before, again.all(), uses_in(&file).unwrap().unwrap()] {
            assert_eq!(uses.known, HashMap::from([(path(1), 150), (path(2), 120)]));
            assert_eq!(uses.since, 100);
            assert_eq!((uses.of(&path(1), 7), uses.of(&path(1), 700)), (150, 700));
            assert_eq!(uses.of(&path(3), 7), 100, "nobody looked before");
        }
    }

    #[test]
    fn one_that_is_lost_or_broken_makes_everything_young() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("used.sqlite");
        let (_, now) = clock(100);
        let used = Used::open(&file, now);
        used.note(&path(1));
        used.flush();
        drop(used);
        for broken in [&b"no database"[..], b""] {
            fs::write(&file, broken).unwrap();
            let (_, later) = clock(900);
            let used = Used::open(&file, later);
            assert_eq!(used.all().of(&path(1), 7), 900);
            used.note(&path(2));
            used.flush();
            assert_eq!(uses_in(&file).unwrap().unwrap().known.len(), 1);
        }
        assert!(fs::read(dir.path().join("used.unreadable")).unwrap().starts_with(b"no database"));
        assert!(uses_in(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("used.sqlite");
        let (time, now) = clock(1_000_000);
        let used = Used::open(&file, now.clone());
        used.note(&path(1));
        used.flush();
        // Back, as after a boot without a clock, and forward again.
        for (at, since) in [(500, 1_000_000), (9_000_000, 9_000_000), (9_000_010, 9_000_000)] {
            time.store(at, Ordering::Relaxed);
            assert_eq!(used.all().of(&path(2), 7), since, "{at}");
        }
        // What is on disk is what was.
        let again = Used::open(&file, now).all();
        assert_eq!((again.known[&path(1)], again.since), (1_000_000, 1_000_000));
    }

    #[test]
    fn one_that_cant_be_had_now_is_had_later() {
        let dir = tempfile::tempdir().unwrap();
        let (below, file) = (dir.path().join("below"), dir.path().join("below/used.sqlite"));
        let (time, now) = clock(900);
        let used = Used::open(&file, now.clone());
        used.note(&path(1));
        used.flush();
        let uses = used.all();
        assert_eq!((uses.of(&path(1), 7), uses.of(&path(2), 7)), (900, 900));
        time.store(950, Ordering::Relaxed);
        fs::create_dir(&below).unwrap();
        used.flush();
        let again = Used::open(&file, now).all();
        assert_eq!((again.known, again.since), (HashMap::from([(path(1), 900)]), 900));
    }

    #[test]
    fn one_that_is_there_and_cant_be_had_now_is_not_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("used.sqlite");
        let (time, now) = clock(100);
        Used::open(&file, now.clone()).note(&path(1));
        let moved = dir.path().join("moved");
        fs::rename(&file, &moved).unwrap();
        // What SQLite can't open.
        fs::create_dir(&file).unwrap();
        time.store(900, Ordering::Relaxed);
        let used = Used::open(&file, now.clone());
        assert_eq!(used.all().of(&path(2), 7), 900);
        fs::remove_dir(&file).unwrap();
        fs::rename(&moved, &file).unwrap();
        used.note(&path(3));
        used.flush();
        // To this process all is young; the next knows better.
        assert_eq!(used.all().of(&path(2), 7), 900);
        let again = Used::open(&file, now).all();
        assert_eq!((again.since, again.known.get(&path(3))), (100, Some(&900)));
    }

    #[test]
    fn what_is_in_memory_alone_is_bounded_by_what_is_there() {
        let (time, now) = clock(1_000);
        let used = Used::open(Path::new("/nonexistent/used.sqlite"), now);
        used.note(&path(1));
        used.note(&path(2));
        time.store(10_000, Ordering::Relaxed);
        let here = Registered { path: path(1), at: 1, nar_size: 1 };
        used.forget_gone(&used.all(), &StoreGraph::new(vec![here], vec![]));
        assert_eq!(used.all().known, HashMap::from([(path(1), 1_000)]));
    }

    #[test]
    fn paths_that_are_gone_are_forgotten_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let (time, now) = clock(1_000);
        let used = Used::open(&dir.path().join("used.sqlite"), now);
        used.note(&path(1));
        used.note(&path(2));
        time.store(10_000, Ordering::Relaxed);
        used.note(&path(3));
        used.flush();
        let here = Registered { path: path(1), at: 1, nar_size: 1 };
        used.forget_gone(&used.all(), &StoreGraph::new(vec![here], vec![]));
        let mut known: Vec<_> = used.all().known.into_keys().collect();
        known.sort();
        assert_eq!(known, [path(1), path(3)]);
    }
}
