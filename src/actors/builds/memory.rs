//! What realisations have taught: what mutable references name, what sources resolve to, and what
//! failed a moment ago. In memory only; everybody may read it. What is forgotten is found out again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Failure;
use crate::lock::lock;
use crate::model::{FetchFrom, Limits, Source, StorePath, Viewer};
use crate::nix::{Lock, locked_revision};

/// Entries of each kind; the oldest goes.
const MOST: usize = 4096;
/// Failures, which keep a source's text.
const MOST_FAILED: usize = 512;
/// A failure older than this is a new one's first.
const FORGET: Duration = Duration::from_secs(3600);

/// How long what is remembered.
#[derive(Debug, Clone, Copy)]
pub struct MemoryConfig {
    /// A mutable reference keeps its meaning, and an expression its result.
    pub refresh: Duration,
    /// The first wait after a failure; it doubles.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

/// A request as far as it is known: a mutable reference is replaced by what it is locked to. A digest,
/// because a text may be long.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    digest: [u8; 32],
    /// The result is the same for ever.
    lasts: bool,
}

impl Key {
    pub(super) fn of(source: &Source, viewer: &Viewer) -> Self {
        let lasts = matches!(source, Source::FlakeRef(_));
        Self::new([source.key(), &source.text(), ""], viewer, lasts)
    }

    pub(super) fn locked(lock: &Lock, viewer: &Viewer) -> Self {
        Self::new(["flakeRef", &lock.reference, &lock.inputs], viewer, true)
    }

    /// Of a failure: what fails within limits of a tenant's own, or where that may not fetch from everywhere,
    /// may work for others.
    pub(super) fn under(&self, viewer: &Viewer) -> Self {
        let limits = viewer.limits.as_ref();
        let (time, memory) = (limits.and_then(Limits::time), limits.and_then(Limits::memory));
        let bounds = (time, memory, viewer.fetch_from.as_ref().map(FetchFrom::set));
        if bounds == (None, None, None) {
            return self.clone();
        }
        let mut digest = Sha256::new();
        digest.update(self.digest);
        digest.update(format!("{bounds:?}"));
        Self { digest: digest.finalize().into(), lasts: self.lasts }
    }

    /// What one sees in the store may be nobody else's to know.
    fn new(parts: [&str; 3], viewer: &Viewer, lasts: bool) -> Self {
        let mut digest = Sha256::new();
        digest.update(viewer.digest());
        for part in parts {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        Self { digest: digest.finalize().into(), lasts }
    }
}

/// A source whose result is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub path: StorePath,
    pub revision: Option<String>,
}

/// A request that failed and is not tried again at once.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// For a person to name it.
    pub number: u64,
    pub source: Source,
    pub failure: Failure,
    pub times: u32,
    pub again_in: Duration,
}

struct Failed {
    number: u64,
    source: Source,
    failure: Failure,
    times: u32,
    again: Instant,
}

#[derive(Default)]
struct Inner {
    /// By reference and viewer.
    locks: HashMap<(String, [u8; 32]), (Instant, Lock)>,
    resolved: HashMap<Key, (Instant, StorePath)>,
    failed: HashMap<Key, (Instant, Failed)>,
    numbers: u64,
}

pub struct Memory {
    config: MemoryConfig,
    inner: Mutex<Inner>,
}

impl Memory {
    pub fn new(config: MemoryConfig) -> Self {
        Self { config, inner: Mutex::default() }
    }

    /// The result of a source, if it still counts: of a locked flake always, of anything that may
    /// change for a while. Whether the path is still in the store is another question.
    pub fn known(&self, source: &Source, viewer: &Viewer) -> Option<Known> {
        let key = self.key(source, viewer)?;
        let path = self.resolved(&key)?;
        Some(Known { path, revision: self.revision(source, viewer) })
    }

    /// `None`: a mutable reference has to be looked up.
    fn key(&self, source: &Source, viewer: &Viewer) -> Option<Key> {
        match source {
            Source::FlakeRef(reference) if locked_revision(reference).is_none() => {
                self.lock_of(reference, viewer).map(|lock| Key::locked(&lock, viewer))
            }
            _ => Some(Key::of(source, viewer)),
        }
    }

    fn revision(&self, source: &Source, viewer: &Viewer) -> Option<String> {
        let Source::FlakeRef(reference) = source else {
            return None;
        };
        let own = locked_revision(reference).map(str::to_owned);
        own.or_else(|| self.lock_of(reference, viewer)?.revision)
    }

    pub(super) fn lock_of(&self, reference: &str, viewer: &Viewer) -> Option<Lock> {
        let inner = self.inner();
        let (at, lock) = inner.locks.get(&(reference.to_owned(), viewer.digest()))?;
        (at.elapsed() < self.config.refresh).then(|| lock.clone())
    }

    /// What it named last, however long ago: for when nobody answers.
    pub(super) fn last_lock_of(&self, reference: &str, viewer: &Viewer) -> Option<Lock> {
        self.inner()
            .locks
            .get(&(reference.to_owned(), viewer.digest()))
            .map(|(_, lock)| lock.clone())
    }

    pub(super) fn learn_lock(&self, reference: &str, viewer: &Viewer, lock: Lock) {
        let key = (reference.to_owned(), viewer.digest());
        insert(&mut self.inner().locks, key, lock, MOST);
    }

    pub(super) fn resolved(&self, key: &Key) -> Option<StorePath> {
        let inner = self.inner();
        let (at, path) = inner.resolved.get(key)?;
        (key.lasts || at.elapsed() < self.config.refresh).then(|| path.clone())
    }

    /// The result of `source`, whose failures are forgotten.
    pub(super) fn learn(&self, source: &Source, viewer: &Viewer, key: Key, path: StorePath) {
        let mut inner = self.inner();
        inner.failed.remove(&key.under(viewer));
        inner.failed.remove(&Key::of(source, viewer).under(viewer));
        insert(&mut inner.resolved, key, path, MOST);
    }

    /// What an earlier process realised `source` as; counts if that is the same for ever.
    pub(in crate::actors) fn recall(&self, source: &Source, path: StorePath) {
        if matches!(source, Source::FlakeRef(text) if locked_revision(text).is_some()) {
            insert(&mut self.inner().resolved, Key::of(source, &Viewer::local()), path, MOST);
        }
    }

    /// The failure of a request that is not to be tried again yet.
    pub(super) fn too_early(&self, source: &Source, viewer: &Viewer) -> Option<Failure> {
        let keys = [Some(Key::of(source, viewer)), self.key(source, viewer)];
        keys.iter().flatten().find_map(|key| self.too_early_for(&key.under(viewer)))
    }

    pub(super) fn too_early_for(&self, key: &Key) -> Option<Failure> {
        let inner = self.inner();
        let (_, failed) = inner.failed.get(key)?;
        let wait = failed.again.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then(|| Failure { again_in: Some(wait), ..failed.failure.clone() })
    }

    /// Remembers a failure that would come again; `source` is what a person calls it.
    pub(super) fn learn_failure(&self, key: Key, source: &Source, failure: Failure) {
        if !failure.error.is_lasting() {
            return;
        }
        let mut inner = self.inner();
        let before = inner.failed.get(&key).filter(|(at, _)| at.elapsed() < FORGET);
        let (number, times) = if let Some((_, failed)) = before {
            (failed.number, failed.times.saturating_add(1))
        } else {
            inner.numbers += 1;
            (inner.numbers, 1)
        };
        let factor = 1u32.checked_shl(times - 1).unwrap_or(u32::MAX);
        let wait = self.config.retry_min.saturating_mul(factor).min(self.config.retry_max);
        let again = Instant::now() + wait;
        let failed = Failed { number, source: source.clone(), failure, times, again };
        insert(&mut inner.failed, key, failed, MOST_FAILED);
    }

    /// What failed and waits, oldest first.
    pub fn failures(&self) -> Vec<Remembered> {
        let inner = self.inner();
        let remembered = |failed: &Failed| Remembered {
            number: failed.number,
            source: failed.source.clone(),
            failure: failed.failure.clone(),
            times: failed.times,
            again_in: failed.again.saturating_duration_since(Instant::now()),
        };
        let mut all: Vec<_> = inner.failed.values().map(|(_, f)| remembered(f)).collect();
        all.retain(|failure| !failure.again_in.is_zero());
        all.sort_by_key(|failure| failure.number);
        all
    }

    /// Forgets the failures that `which` picks; how many there were.
    pub fn forgive(&self, which: impl Fn(&Source, u64) -> bool) -> usize {
        let mut inner = self.inner();
        let before = inner.failed.len();
        inner.failed.retain(|_, (_, failed)| !which(&failed.source, failed.number));
        before - inner.failed.len()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn insert<K: Hash + Eq + Clone, V>(
    map: &mut HashMap<K, (Instant, V)>,
    key: K,
    value: V,
    most: usize,
) {
    if map.len() >= most && !map.contains_key(&key) {
        let oldest = map.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
        oldest.and_then(|key| map.remove(&key));
    }
    map.insert(key, (Instant::now(), value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Policy, Sight};
    use crate::nix::{RealiseError, Step};

    const CONFIG: MemoryConfig = MemoryConfig {
        refresh: Duration::from_secs(60),
        retry_min: Duration::from_secs(10),
        retry_max: Duration::from_secs(35),
    };
    const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";

    fn local() -> Viewer {
        Viewer::local()
    }

    fn blind() -> Viewer {
        Viewer { sight: Sight::Own, ..local() }
    }

    fn lock(revision: &str) -> Lock {
        let reference = format!("github:o/r?narHash={revision}#x");
        Lock { reference, inputs: "i".into(), revision: Some(revision.into()) }
    }

    fn refused() -> Failure {
        let (step, cause) = (Step::Evaluate, "no".to_owned());
        RealiseError::Refused { step, cause, hint: None }.into()
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_mutable_reference_is_looked_up_again_and_a_locked_one_never() {
        let memory = Memory::new(CONFIG);
        let path = StorePath::parse(PATH).unwrap();
        let mutable = Source::FlakeRef("github:o/r#x".into());
        assert_eq!(memory.known(&mutable, &local()), None);
        memory.learn_lock("github:o/r#x", &local(), lock("a"));
        memory.learn(&mutable, &local(), Key::locked(&lock("a"), &local()), path.clone());
        let known = memory.known(&mutable, &local()).unwrap();
        assert_eq!((known.path, known.revision.as_deref()), (path.clone(), Some("a")));
        pass(61).await;
        assert_eq!(memory.known(&mutable, &local()), None);
        // The same commit again: nothing is to be evaluated.
        memory.learn_lock("github:o/r#x", &local(), lock("a"));
        assert!(memory.known(&mutable, &local()).is_some());
        memory.learn_lock("github:o/r#x", &local(), lock("b"));
        assert_eq!(memory.known(&mutable, &local()), None);

        let locked = Source::FlakeRef(lock("a").reference);
        memory.learn(&locked, &local(), Key::of(&locked, &local()), path.clone());
        let expression = Source::NixExpr("x".into());
        memory.learn(&expression, &local(), Key::of(&expression, &local()), path);
        assert!(memory.known(&expression, &local()).is_some());
        pass(100_000).await;
        assert!(memory.known(&locked, &local()).is_some());
        assert_eq!(memory.known(&expression, &local()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_are_forgiven() {
        let memory = Memory::new(CONFIG);
        let source = Source::NixExpr("x".into());
        let fail = || memory.learn_failure(Key::of(&source, &local()), &source, refused());
        for wait in [10, 20, 35, 35] {
            fail();
            let failure = memory.too_early(&source, &local()).unwrap();
            assert_eq!(failure.again_in, Some(Duration::from_secs(wait)));
            assert_eq!(memory.failures().len(), 1);
            pass(wait).await;
            assert!(memory.too_early(&source, &local()).is_none() && memory.failures().is_empty());
        }
        fail();
        assert_eq!(memory.forgive(|_, number| number == 99), 0);
        assert_eq!(memory.forgive(|_, number| number == 1), 1);
        assert!(memory.too_early(&source, &local()).is_none());
        fail();
        assert_eq!(memory.too_early(&source, &local()).unwrap().again_in, Some(CONFIG.retry_min));
        memory.learn(
            &source,
            &local(),
            Key::of(&source, &local()),
            StorePath::parse(PATH).unwrap(),
        );
        assert!(memory.too_early(&source, &local()).is_none());
        // What may be gone the next moment is no reason to wait.
        let (step, cause) = (Step::Fetch, "network".to_owned());
        let error = RealiseError::Temporary { step, cause };
        memory.learn_failure(Key::of(&source, &local()), &source, error.into());
        assert!(memory.too_early(&source, &local()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_ends_the_wait_for_a_flake() {
        let memory = Memory::new(CONFIG);
        let source = Source::FlakeRef("github:o/r#x".into());
        memory.learn_lock("github:o/r#x", &local(), lock("a"));
        memory.learn_failure(Key::locked(&lock("a"), &local()), &source, refused());
        assert!(memory.too_early(&source, &local()).is_some());
        memory.learn_lock("github:o/r#x", &local(), lock("b"));
        assert!(memory.too_early(&source, &local()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_by_who_sees_all_is_not_told_to_who_does_not() {
        let memory = Memory::new(CONFIG);
        let path = StorePath::parse(PATH).unwrap();
        let mutable = Source::FlakeRef("github:o/r#x".into());
        memory.learn_lock("github:o/r#x", &local(), lock("a"));
        for source in [mutable, Source::NixExpr("x".into()), Source::FlakeRef(lock("a").reference)]
        {
            let key = memory.key(&source, &local()).unwrap();
            memory.learn(&source, &local(), key.clone(), path.clone());
            memory.learn_failure(key, &source, refused());
            assert!(
                memory.known(&source, &local()).is_some()
                    && memory.known(&source, &blind()).is_none()
            );
            assert!(
                memory.too_early(&source, &local()).is_some()
                    && memory.too_early(&source, &blind()).is_none()
            );
        }
    }

    /// Or who has little time would make others wait.
    #[tokio::test(start_paused = true)]
    async fn what_failed_within_a_tenants_own_limits_failed_for_who_has_the_same() {
        let memory = Memory::new(CONFIG);
        let source = Source::NixExpr("x".into());
        let within = |seconds: u32| {
            let text = format!("preset: open\ndefault: {{evaluationTime: {seconds}s}}");
            let limits = Policy::parse(&text).unwrap().rules("x").limits().clone();
            Viewer { limits: Some(limits), ..local() }
        };
        let key = Key::of(&source, &local());
        memory.learn_failure(key.under(&within(1)), &source, refused());
        assert!(memory.too_early(&source, &within(1)).is_some());
        assert!(memory.too_early(&source, &within(2)).is_none());
        assert!(memory.too_early(&source, &local()).is_none());
        memory.learn(&source, &within(1), key, StorePath::parse(PATH).unwrap());
        assert!(memory.too_early(&source, &within(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_with_some_stores_failed_for_who_has_the_same() {
        let memory = Memory::new(CONFIG);
        let source = Source::NixExpr("x".into());
        let text = "preset: open\ndefault: {substituters: ['https://a.example', daemon]}\nnamespaces:\n  \
                    same: {substituters: [daemon, 'https://a.example']}\n  fewer: {substituters: [daemon]}\n";
        let policy = Policy::parse(text).unwrap();
        let of = |name: &str| Viewer { fetch_from: policy.rules(name).fetch_from(), ..local() };
        memory.learn_failure(Key::of(&source, &local()).under(&of("x")), &source, refused());
        assert!(memory.too_early(&source, &of("same")).is_some());
        assert!(memory.too_early(&source, &of("fewer")).is_none());
        assert!(memory.too_early(&source, &local()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let memory = Memory::new(CONFIG);
        let path = StorePath::parse(PATH).unwrap();
        let source = |n: usize| Source::NixExpr(n.to_string());
        for n in 0..=MOST {
            memory.learn(&source(n), &local(), Key::of(&source(n), &local()), path.clone());
            if n == 0 {
                pass(1).await;
            }
        }
        assert_eq!(memory.inner().resolved.len(), MOST);
        assert!(
            memory.known(&source(0), &local()).is_none()
                && memory.known(&source(MOST), &local()).is_some()
        );
    }
}
