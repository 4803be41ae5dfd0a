//! Nix keeps the temporary roots of a process in a file that has its pid as a name, and one that starts removes the file
//! of that name: there can be no other process of its number. In another container there can.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::thread;

use rustix::fs::{FlockOperation, flock};
use rustix::thread::gettid;

/// Pids that the next processes may get: the guard's, Nix's, and some that others take meanwhile.
const NEXT: i32 = 64;
/// Of numbers that are passed over. What would take longer is more than a container has.
const MOST: usize = 100_000;

/// Blocking. The next processes get pids by which no living process has temporary roots in this store; where that can't
/// be told, any.
pub(super) fn pass(state_dir: &Path) {
    let taken = taken(&state_dir.join("temproots"));
    // Threads are numbered with the processes.
    let next = || thread::spawn(gettid).join().map_or(0, |tid| tid.as_raw_nonzero().get());
    let is_near = |tid: i32| (tid..=tid.saturating_add(NEXT)).any(|pid| taken.contains(&pid));
    if !taken.is_empty() {
        (0..MOST).find(|_| !is_near(next()));
    }
}

/// The living hold a lock on theirs.
fn taken(dir: &Path) -> HashSet<i32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let file = File::open(entry.path()).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_err().then_some(pid)
    });
    named.collect()
}
