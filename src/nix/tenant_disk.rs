//! What tenants' directories take on disk.
//!
//! While a tenant evaluates, all of its directories are measured together: by one of its evaluations for all of them,
//! seldom if that takes long, and at once when the file system loses what would fill half of the rest. What is left of
//! it is tidied up by one thread for all tenants.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::lock::lock;

use super::beneath::{self, Beneath};
use super::tenant_dirs::{At, Inner, TenantDir, TenantDirs, is_own, is_retired, tenant_of};

/// A store of a tenant's own goes when it was not used for so long. A home stays: what it caches may be of a forge that
/// is down when it is needed.
const IDLE: Duration = Duration::from_hours(24);
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two questions how large a tenant's directories are.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// An answer counts for so many times what it took to find.
const LASTS: u32 = 20;
const LONGEST: Duration = Duration::from_secs(60);
/// But never more of the time than one part of so many is spent on looking.
const LEAST_LASTS: u32 = 4;
/// In a row; then an evaluation ends whose disk can't be bounded.
const FAILURES: u32 = 3;

/// What a tenant has, as far as it is known; one for all of its directories.
#[derive(Debug, Default)]
pub(super) struct Measure(tokio::sync::Mutex<Option<Measured>>);

#[derive(Debug, Clone, Copy)]
struct Measured {
    at: Instant,
    took: Duration,
    size: u64,
    /// Bytes that the file system had left.
    free: u64,
}

impl Measured {
    fn counts(&self, free: u64, most: u64) -> bool {
        let age = self.at.elapsed();
        let filled = self.free.saturating_sub(free) > most.saturating_sub(self.size) / 2;
        let lasts = (self.took * LASTS).min(LONGEST).max(self.took * LEAST_LASTS);
        self.size <= most && age < if filled { self.took * LEAST_LASTS } else { lasts }
    }
}

/// What is to be done by the one thread.
#[derive(Debug, Default)]
pub(super) struct Chores {
    is_under_way: bool,
    /// Something happened since it began.
    again: bool,
    looked: Option<Instant>,
    /// Tenants whose evaluations have ended.
    left: BTreeSet<String>,
}

impl TenantDir {
    /// Until all of its tenant's directories have more bytes on disk than they may, or nobody can tell.
    pub(super) async fn outgrown(&self) -> io::Result<()> {
        if self.at.disk == u64::MAX {
            return std::future::pending().await;
        }
        let mut failures = 0;
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            match self.measured().await {
                Ok(size) if size > self.at.disk => return Ok(()),
                Ok(_) => failures = 0,
                Err(error) if failures >= FAILURES => return Err(error),
                Err(_) => failures += 1,
            }
        }
    }

    async fn measured(&self) -> io::Result<u64> {
        let mut last = self.measure.0.lock().await;
        let Some(all) = self.all.upgrade() else { return Ok(0) };
        let (at, tenant, known) = (self.at.clone(), self.tenant.clone(), *last);
        let measured = tokio::task::spawn_blocking(move || {
            let free = free(&at.homes)?;
            if let Some(known) = known.filter(|known| known.counts(free, at.disk)) {
                return Ok(known);
            }
            let began = Instant::now();
            let size = size(&all, &at, &tenant)?;
            Ok::<_, io::Error>(Measured { at: Instant::now(), took: began.elapsed(), size, free })
        });
        let measured = measured.await.unwrap_or_else(|panic| Err(io::Error::other(panic)))?;
        *last = Some(measured);
        Ok(measured.size)
    }
}

fn free(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes on disk of a tenant, or some number above what it may have. What nobody is in any more does not count.
fn size(all: &Inner, at: &At, tenant: &str) -> io::Result<u64> {
    let mut bytes = 0u64;
    for path in dirs(&at.homes, Some(tenant))? {
        if is_retired(&path) && !lock(&all.held).contains(&path) {
            continue;
        }
        let most = at.disk.saturating_sub(bytes);
        bytes = bytes.saturating_add(disk(&path, most)?.unwrap_or(0));
        if bytes > at.disk {
            break;
        }
    }
    Ok(bytes)
}

/// `None`: it is gone, or has another name now.
fn disk(dir: &Path, most: u64) -> io::Result<Option<u64>> {
    match Beneath::open(dir).and_then(|tree| tree.disk(most)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn dirs(homes: &Path, tenant: Option<&str>) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(homes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| tenant.is_none_or(|tenant| tenant_of(path) == tenant));
    Ok(paths)
}

fn used(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|found| found.modified()).ok()
}

impl TenantDirs {
    /// Has the one thread look, `now` or when it is time again, also at what a tenant has left.
    pub(super) fn tidy(&self, at: &At, now: bool, left: Option<String>) {
        let mut chores = lock(&self.0.chores);
        chores.left.extend(left);
        chores.again |= now;
        let is_due = chores.looked.is_none_or(|then| then.elapsed() >= LOOK_EVERY);
        if chores.is_under_way || !(now || is_due) {
            return;
        }
        chores.is_under_way = true;
        drop(chores);
        let (this, at) = (self.clone(), at.clone());
        let thread = std::thread::Builder::new().name("tenants".into());
        if let Err(error) = thread.spawn(move || this.tidy_up(&at)) {
            tracing::warn!(%error, "nobody tidies up the tenants' directories for now");
            lock(&self.0.chores).is_under_way = false;
        }
    }

    /// Blocking.
    fn tidy_up(&self, at: &At) {
        let tell = |error: io::Error| {
            tracing::warn!(dir = %at.homes.display(), %error, "can't look at the tenants' directories");
        };
        loop {
            let mut chores = lock(&self.0.chores);
            chores.again = false;
            let left = std::mem::take(&mut chores.left);
            drop(chores);
            for tenant in left {
                let began = Instant::now();
                self.trim(at, &tenant).unwrap_or_else(tell);
                std::thread::park_timeout((began.elapsed() * LEAST_LASTS).min(LONGEST));
            }
            self.look(at).unwrap_or_else(tell);
            let mut chores = lock(&self.0.chores);
            chores.looked = Some(Instant::now());
            if !chores.again {
                chores.is_under_way = false;
                return;
            }
        }
    }

    /// Retires those of a tenant's stores that were not used for longest while they have more than half of what it may
    /// have, and a home that has nearly all. What can't be measured goes.
    pub(super) fn trim(&self, at: &At, tenant: &str) -> io::Result<()> {
        let mut stores = Vec::new();
        for path in dirs(&at.homes, Some(tenant))?.into_iter().filter(|path| !is_retired(path)) {
            let Some(bytes) = disk(&path, at.disk).unwrap_or(Some(u64::MAX)) else { continue };
            if is_own(&path) {
                stores.push((used(&path), path, bytes));
            } else if bytes > at.disk / 8 * 7 {
                self.retire_large(at, &path);
            }
        }
        stores.sort();
        let mut bytes = stores.iter().fold(0u64, |sum, (_, _, one)| sum.saturating_add(*one));
        for (_, path, one) in stores {
            if bytes <= at.disk / 2 {
                break;
            }
            bytes = bytes.saturating_sub(one);
            self.retire_large(at, &path);
        }
        Ok(())
    }

    fn retire_large(&self, at: &At, path: &Path) {
        tracing::info!(dir = %path.display(), "a tenant's directory is large: it is removed");
        self.retire(at, path);
    }

    /// Retires stores that are idle, and removes what is retired and nobody is in.
    fn look(&self, at: &At) -> io::Result<()> {
        let is_idle = |path: &Path| {
            let age = used(path).and_then(|used| SystemTime::now().duration_since(used).ok());
            is_own(path) && age.is_some_and(|age| age > IDLE)
        };
        for path in dirs(&at.homes, None)? {
            if is_idle(&path) {
                self.retire(at, &path);
            }
        }
        for path in dirs(&at.homes, None)?.into_iter().filter(|path| is_retired(path)) {
            if !lock(&self.0.held).contains(&path)
                && let Err(error) = beneath::remove(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %path.display(), %error, "a tenant's directory can't be removed yet");
            }
        }
        Ok(())
    }
}
