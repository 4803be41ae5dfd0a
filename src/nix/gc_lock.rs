//! Makes GC roots that no collector can overlook, without a process: the store-safety protocol.
//!
//! A collector holds `<state>/gc.lock` exclusively, reads the roots, then deletes; a root that
//! appears meanwhile is too late. So a root is placed
//!
//! - under the shared lock, when no collector runs: the next one reads it; or
//! - announced to the running one over `<state>/gc-socket/socket` (the full path and a newline, the
//!   answer is `1` once the path is not just being deleted), where the root is written first and
//!   the connection must still stand at the end: then that same collector ran all the while, and
//!   every later one reads the root.
//!
//! Only after that the path's validity counts. Collectors before Nix 2.35 look at the announced
//! paths when they *plan* a deletion and not again when they carry it out, so a path among those
//! being deleted right now may be acknowledged and go. There is nothing to ask them, so the answer
//! waits until that collector has ended, or [`SETTLE`] has passed with the path still valid.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

use crate::model::StorePath;

use super::NixError;
use super::error::io_error;

/// For the whole protocol. A collector answers in microseconds, unless it is deleting the path.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a path must stay valid below an old collector before it is believed.
const SETTLE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(20);

/// Where a store keeps its lock and its socket.
pub(super) struct GcLock {
    lock: PathBuf,
    socket: PathBuf,
    /// Whether the collector looks at announced paths once more before it deletes.
    collector_rechecks: bool,
}

/// What an attempt to announce a path came to.
enum Announced {
    /// The collector that has the path is still there.
    Held(UnixStream),
    /// It has ended, or has not opened its socket yet.
    NoCollector,
}

impl GcLock {
    pub(super) fn new(state_dir: &Path, collector_rechecks: bool) -> Self {
        Self {
            lock: state_dir.join("gc.lock"),
            socket: state_dir.join("gc-socket/socket"),
            collector_rechecks,
        }
    }

    /// Makes `root` a symlink to `path` if `is_valid` says so once nothing can collect it any more.
    /// `Ok(false)` and errors leave no new root; one that led elsewhere stays as it was.
    pub(super) fn place(
        &self,
        path: &StorePath,
        root: &Path,
        is_valid: impl Fn() -> Result<bool, NixError>,
    ) -> Result<bool, NixError> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(_held) = self.try_shared()? {
                return place_now(path, root, &is_valid);
            }
            if let Some(valid) = self.place_announced(path, root, &is_valid, end)? {
                return Ok(valid);
            }
            if Instant::now() >= end {
                return Err(NixError::Collector {
                    path: path.clone(),
                    reason: format!("no answer for {LIMIT:?}"),
                });
            }
            thread::sleep(RETRY);
        }
    }

    /// The shared lock, once no collector runs; until it is dropped none begins.
    pub(super) fn hold(&self) -> Result<File, NixError> {
        wait_for_lock(&self.lock, FlockOperation::LockShared)
    }

    /// The shared lock, or `None` while a collector runs. Dropping the file releases it.
    fn try_shared(&self) -> Result<Option<File>, NixError> {
        try_lock(&self.lock, FlockOperation::NonBlockingLockShared)
    }

    /// `None`: the collector went away in between; begin again.
    fn place_announced(
        &self,
        path: &StorePath,
        root: &Path,
        is_valid: &impl Fn() -> Result<bool, NixError>,
        end: Instant,
    ) -> Result<Option<bool>, NixError> {
        let refused =
            |err: io::Error| NixError::Collector { path: path.clone(), reason: err.to_string() };
        // The temporary name lies in the roots directory too and thus is a root already.
        let staged = StagedLink::new(path, root)?;
        let connection = match self.announce(path, end).map_err(refused)? {
            Announced::Held(connection) => connection,
            Announced::NoCollector => return Ok(None),
        };
        let valid = is_valid()? && (self.collector_rechecks || self.settled(is_valid)?);
        if valid {
            staged.rename()?;
        } else {
            drop(staged);
            remove_root(path, root)?;
        }
        match is_open(&connection) {
            Ok(open) => Ok(open.then_some(valid)),
            Err(err) => {
                remove_root(path, root)?;
                Err(refused(err))
            }
        }
    }

    fn announce(&self, path: &StorePath, end: Instant) -> io::Result<Announced> {
        let talk = || -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(&self.socket)?;
            let left = end.saturating_duration_since(Instant::now()).max(RETRY);
            stream.set_read_timeout(Some(left))?;
            stream.set_write_timeout(Some(left))?;
            stream.write_all(format!("{path}\n").as_bytes())?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            if answer != *b"1" {
                return Err(io::Error::other(format!("it answered {answer:?}")));
            }
            Ok(stream)
        };
        match talk() {
            Ok(stream) => Ok(Announced::Held(stream)),
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(Announced::NoCollector)
            }
            Err(err) => Err(err),
        }
    }

    /// Waits until the collector has ended or the path has stayed valid for long enough.
    fn settled(&self, is_valid: &impl Fn() -> Result<bool, NixError>) -> Result<bool, NixError> {
        let end = Instant::now() + SETTLE;
        while Instant::now() < end && self.try_shared()?.is_none() {
            thread::sleep(RETRY);
        }
        is_valid()
    }
}

/// With the lock held nothing can be collected, so the order does not matter.
fn place_now(
    path: &StorePath,
    root: &Path,
    is_valid: impl Fn() -> Result<bool, NixError>,
) -> Result<bool, NixError> {
    if is_valid()? {
        StagedLink::new(path, root)?.rename()?;
        return Ok(true);
    }
    remove_root(path, root)?;
    Ok(false)
}

/// The lock file, made if there is none, with the lock; `None`: another one has it.
pub(super) fn try_lock(path: &Path, how: FlockOperation) -> Result<Option<File>, NixError> {
    // The standard library opens with O_CLOEXEC: no child keeps the lock.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|err| io_error("open", path, err))?;
    match flock(&file, how) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
        Err(err) => Err(io_error("lock", path, err.into())),
    }
}

/// Blocking. The same with an operation that waits.
pub(super) fn wait_for_lock(path: &Path, how: FlockOperation) -> Result<File, NixError> {
    loop {
        // None: a signal came.
        if let Some(file) = try_lock(path, how)? {
            return Ok(file);
        }
    }
}

/// A connection on which nothing comes and that has not ended.
fn is_open(mut connection: &UnixStream) -> io::Result<bool> {
    connection.set_nonblocking(true)?;
    match connection.read(&mut [0]) {
        Ok(0) => Ok(false),
        Ok(_) => Err(io::Error::other("it said more than was asked")),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(err) => Err(err),
    }
}

/// Removes `root` if it leads to `path`; another's root is not ours to remove.
fn remove_root(path: &StorePath, root: &Path) -> Result<(), NixError> {
    let result = match fs::read_link(root) {
        Ok(target) if target == Path::new(&path.to_string()) => fs::remove_file(root),
        Ok(_) => Ok(()),
        Err(err) => Err(err),
    };
    match result {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|err| io_error("remove", root, err)),
    }
}

/// A symlink under a temporary name, gone unless it is renamed.
struct StagedLink<'a> {
    staged: PathBuf,
    root: &'a Path,
}

impl<'a> StagedLink<'a> {
    fn new(path: &StorePath, root: &'a Path) -> Result<Self, NixError> {
        let staged = staging_name(root);
        symlink(path.to_string(), &staged).map_err(|err| io_error("create", &staged, err))?;
        Ok(Self { staged, root })
    }

    fn rename(self) -> Result<(), NixError> {
        fs::rename(&self.staged, self.root).map_err(|err| io_error("create", self.root, err))
    }
}

impl Drop for StagedLink<'_> {
    fn drop(&mut self) {
        // After the rename it is no longer there; a leftover of a crash is swept at start.
        let _ = fs::remove_file(&self.staged);
    }
}

/// Every name that this room makes beside a root starts so.
const STAGING_PREFIX: &str = ".nix-csi-";

/// A fresh name in `root`'s directory, unique on this machine's boot.
pub(super) fn staging_name(root: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    root.with_file_name(format!("{STAGING_PREFIX}{}-{number}-{name}", std::process::id()))
}

/// Blocking. Removes what a killed driver left half made in a directory of roots. For the start,
/// before anything is realised there.
pub fn sweep_staging(roots_dir: &Path) -> Result<usize, NixError> {
    let list = |err| io_error("list", roots_dir, err);
    let mut swept = 0;
    for entry in fs::read_dir(roots_dir).map_err(list)? {
        let entry = entry.map_err(list)?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(STAGING_PREFIX) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().map_err(list)?.is_dir();
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|err| io_error("remove", &path, err))?;
        swept += 1;
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn path() -> StorePath {
        StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x").unwrap()
    }

    fn points_to_path(root: &Path) -> bool {
        fs::read_link(root).is_ok_and(|t| t == Path::new(&path().to_string()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A state directory with a collector's lock held and its socket answering `answer`.
    fn collector(dir: &Path, answer: &'static [u8]) -> File {
        fs::create_dir(dir.join("gc-socket")).unwrap();
        let listener = UnixListener::bind(dir.join("gc-socket/socket")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                assert_eq!(line, format!("{}\n", path()));
                stream.write_all(answer).unwrap();
                if !answer.is_empty() {
                    // Stands until the other side leaves, as a collector's does.
                    let _ = reader.read_line(&mut line);
                }
            }
        });
        let lock = File::create(dir.join("gc.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        lock
    }

    #[test]
    fn without_a_collector_the_lock_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let (gc, root) = (GcLock::new(dir.path(), false), dir.path().join("roots"));
        fs::create_dir(&root).unwrap();
        let root = root.join("r");
        assert!(!gc.place(&path(), &root, || Ok(false)).unwrap());
        assert!(fs::symlink_metadata(&root).is_err());
        assert!(gc.place(&path(), &root, || Ok(true)).unwrap());
        assert!(gc.place(&path(), &root, || Ok(true)).unwrap());
        assert!(points_to_path(&root));
        assert!(!gc.place(&path(), &root, || Ok(false)).unwrap());
        assert!(names(root.parent().unwrap()).is_empty());
    }

    #[test]
    fn a_running_collector_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = collector(dir.path(), b"1");
        let (gc, root) = (GcLock::new(dir.path(), true), dir.path().join("r"));
        assert!(gc.place(&path(), &root, || Ok(true)).unwrap());
        assert!(points_to_path(&root));
        assert!(!gc.place(&path(), &root, || Ok(false)).unwrap());
        assert_eq!(names(dir.path()), ["gc-socket", "gc.lock"]);
    }

    #[test]
    fn an_old_collector_may_still_delete_what_it_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let lock = collector(dir.path(), b"1");
        let (gc, root) = (GcLock::new(dir.path(), false), dir.path().join("r"));
        let asked = AtomicU64::new(0);
        let deleted_soon = || Ok(asked.fetch_add(1, Ordering::Relaxed) == 0);
        let ends = thread::spawn(move || {
            thread::park_timeout(RETRY * 3); // nobody unparks: the collector is at work so long
            drop(lock);
        });
        assert!(!gc.place(&path(), &root, deleted_soon).unwrap());
        assert!(fs::symlink_metadata(&root).is_err());
        ends.join().unwrap();
    }

    #[test]
    fn a_wrong_answer_is_an_error_and_an_end_a_retry() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = collector(dir.path(), b"0");
        let (gc, root) = (GcLock::new(dir.path(), true), dir.path().join("r"));
        let error = gc.place(&path(), &root, || Ok(true)).unwrap_err();
        assert!(matches!(error, NixError::Collector { .. }), "{error}");
        assert!(fs::symlink_metadata(&root).is_err());

        let dir = tempfile::tempdir().unwrap();
        let lock = collector(dir.path(), b"");
        let gc = GcLock::new(dir.path(), true);
        let ends = thread::spawn(move || {
            thread::park_timeout(RETRY * 3); // nobody unparks: the collector is at work so long
            drop(lock);
        });
        let root = dir.path().join("r");
        assert!(gc.place(&path(), &root, || Ok(true)).unwrap());
        ends.join().unwrap();
    }

    #[test]
    fn leftovers_are_swept_and_roots_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        fs::create_dir(staging_name(&root)).unwrap();
        symlink("/nix/store/x", staging_name(&root)).unwrap();
        symlink("/nix/store/x", &root).unwrap();
        assert_eq!(sweep_staging(dir.path()).unwrap(), 2);
        assert_eq!(names(dir.path()), ["r"]);
    }
}
