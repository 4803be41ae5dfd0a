//! Which substituters are worth asking right now. To Nix an `ssh-ng` store that can't be reached
//! fails the whole command, and an `http` one costs long timeouts.
//!
//! A place is asked for a sign of life when somebody wants to know: one that does not answer at
//! most every [`ProbeLimits::remember`]. What can't be told from here counts as up: stores of other kinds, and
//! whatever is behind a proxy. ssh is taken to connect to the URL's own host; where an alias in
//! ssh's configuration says otherwise, give `-F` in `NIX_SSHOPTS`, and Nix finds out.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::metrics;
use super::redact::Redactor;
use super::text::MAX_LINE_BYTES;
use crate::lock::lock;
use crate::model::FetchFrom;

mod choice;
mod effective;
mod named;
mod probe;
mod target;

pub use choice::{Choice, Down};
pub(super) use effective::effective;
use named::{has_no_host, is_lost, is_nameless, is_same};
#[cfg(any(test, fuzzing))]
pub(crate) use target::fuzz;
use target::{Routes, Target};

/// How long an answer is believed. It costs little to ask again, and a command that meets one that
/// went down meanwhile fails.
const FRESH: Duration = Duration::from_secs(2);

/// Times longer than any other that is down, one that hangs is left out.
const STALLED: u32 = 10;

#[derive(Debug, Clone, Copy)]
pub struct ProbeLimits {
    /// Of one probe.
    pub limit: Duration,
    /// How long one that does not answer is left out.
    pub remember: Duration,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        // A place that takes longer to accept a connection is no help to a mount that waits.
        Self { limit: Duration::from_secs(5), remember: Duration::from_secs(30) }
    }
}

/// The configured substituters and what is known of them. Clones share it.
#[derive(Clone)]
pub struct Substituters(Arc<Shared>);

struct Shared {
    places: Vec<Place>,
    limits: ProbeLimits,
    /// Held while probing, so that those who ask meanwhile share the answer.
    probing: tokio::sync::Mutex<()>,
}

struct Place {
    url: String,
    /// Fit for logs.
    shown: String,
    target: Target,
    /// The cluster's, of which a metric tells.
    is_cache: bool,
    known: Mutex<Known>,
    looks: Arc<Semaphore>,
}

#[derive(Default)]
struct Known {
    /// `None` is never.
    since: Option<Instant>,
    down: Option<String>,
    /// How long it is left out; `None`: as long as any that is down.
    memory: Option<Duration>,
}

impl Substituters {
    /// `environment` is what Nix gets, or its daemon if that fetches: proxies and ssh's options
    /// are in it.
    pub fn new(
        urls: Vec<String>,
        limits: ProbeLimits,
        environment: &[(OsString, OsString)],
        cache: Option<&str>,
    ) -> Self {
        let routes = Routes::new(environment);
        let place = |url: String| Place {
            shown: Redactor::default().clean(&url).into_owned(),
            target: Target::of(&url, &routes),
            is_cache: cache.is_some_and(|cache| is_same(cache, &url)),
            url,
            known: Mutex::default(),
            looks: Arc::new(Semaphore::new(1)),
        };
        let places = urls.into_iter().map(place).collect();
        Self(Arc::new(Shared { places, limits, probing: tokio::sync::Mutex::default() }))
    }

    /// Whether they are exactly these.
    pub fn are(&self, urls: &[String]) -> bool {
        self.0.places.iter().map(|place| &place.url).eq(urls)
    }

    /// What `from` allows and is none of these, without credentials.
    pub fn lack(&self, from: &FetchFrom) -> Vec<String> {
        let urls: Vec<_> = self.0.places.iter().map(|place| &*place.url).collect();
        from.unknown_to(&urls)
    }

    /// As Nix takes them: those that `from` allows, whether they answer or not.
    pub fn allowed(&self, from: &FetchFrom) -> String {
        let allowed = self.places(Some(from)).map(|place| &*place.url);
        allowed.collect::<Vec<_>>().join(" ")
    }

    /// Forgets every answer: a command failed, and one that went down may be why.
    pub fn doubt(&self) {
        for place in &self.0.places {
            let mut known = place.known();
            if known.down.is_none() {
                known.since = None;
            }
        }
    }

    /// Those that may be asked; the others are not even probed. What was not asked lately is, all at once.
    pub async fn choose(&self, from: Option<&FetchFrom>) -> Choice {
        let ProbeLimits { limit, remember } = self.0.limits;
        let stale = || self.places(from).filter(|place| place.is_stale(remember));
        if stale().next().is_some() {
            // Whoever holds this may give up: then the next one probes.
            let _probing = self.0.probing.lock().await;
            join_all(stale().map(|place| place.probe(limit))).await;
        }
        self.known(from)
    }

    fn places<'a>(&'a self, from: Option<&'a FetchFrom>) -> impl Iterator<Item = &'a Place> {
        let is_allowed = move |place: &&Place| from.is_none_or(|from| from.allows(&place.url));
        self.0.places.iter().filter(is_allowed)
    }

    /// A command failed because of this one: it is left out from now on. The URL may lack its
    /// parameters and its user. False if it is not one of these.
    pub fn report_down(&self, url: &str, reason: &str) -> bool {
        let reason = Redactor::default().shown(reason, MAX_LINE_BYTES);
        let mut is_known = false;
        for place in self.0.places.iter().filter(|place| is_same(&place.url, url)) {
            place.learn(Some(reason.clone()), None);
            is_known = true;
        }
        is_known
    }

    /// A command that may have waited for one of those over ssh heard nothing. They answer probes and
    /// hang later, so they are left out for longer; their URLs.
    pub fn report_stalled(&self, asked: &Choice, reason: &str) -> Vec<String> {
        let is_up = |place: &&Place| {
            matches!(place.target, Target::Ssh { .. })
                && asked.up.contains(&place.url)
                && place.known().down.is_none()
        };
        let memory = STALLED * self.0.limits.remember;
        let stalled: Vec<_> = self.0.places.iter().filter(is_up).collect();
        for place in &stalled {
            place.learn(Some(reason.to_owned()), None);
            place.known().memory = Some(memory);
        }
        stalled.into_iter().map(|place| place.shown.clone()).collect()
    }

    /// As [`Substituters::report_down`] for each that a command's message says could not be
    /// reached.
    pub fn learn_from(&self, message: &str) {
        if is_nameless(message) {
            return self.learn_of_one_over_ssh(message);
        }
        for place in &self.0.places {
            // Messages have lost their credentials, of which an account at ssh's is one.
            if is_lost(message, &place.url) || is_lost(message, &place.shown) {
                self.report_down(&place.url, message);
            }
        }
    }

    /// Whether what Nix has fetched `from` there came from the cache. Where it does not say from which store over ssh,
    /// it is the cache if there is no other.
    pub fn is_cache(&self, from: &str) -> bool {
        let mut over_ssh = self.0.places.iter().filter(|place| place.is_over_ssh());
        if has_no_host(from) {
            return over_ssh.next().is_some_and(|first| first.is_cache)
                && over_ssh.all(|place| place.is_cache);
        }
        self.0.places.iter().any(|place| place.is_cache && is_same(&place.url, from))
    }

    /// It is that one if there is one; of several each is asked again.
    fn learn_of_one_over_ssh(&self, message: &str) {
        let is_up = |place: &&Place| place.is_over_ssh() && place.known().down.is_none();
        let up: Vec<_> = self.0.places.iter().filter(is_up).collect();
        if let [place] = &up[..] {
            self.report_down(&place.url, message);
        } else {
            for place in up {
                place.known().since = None;
            }
        }
    }

    /// How many were down when last heard of.
    pub fn down(&self) -> usize {
        self.0.places.iter().filter(|place| place.known().down.is_some()).count()
    }

    fn known(&self, from: Option<&FetchFrom>) -> Choice {
        let mut choice = Choice { limited: from.cloned(), ..Choice::default() };
        for place in self.places(from) {
            let known = place.known();
            match &known.down {
                None => choice.up.push(place.url.clone()),
                Some(reason) => {
                    let age = known.since.map_or(Duration::ZERO, |since| since.elapsed());
                    let memory = known.memory.unwrap_or(self.0.limits.remember);
                    let again_in = memory.saturating_sub(age);
                    let (url, reason) = (place.shown.clone(), reason.clone());
                    choice.down.push(Down { url, reason, again_in });
                }
            }
        }
        choice
    }
}

impl Place {
    fn is_over_ssh(&self) -> bool {
        self.url.starts_with("ssh-ng://")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn is_stale(&self, remember: Duration) -> bool {
        let known = self.known();
        let believed = match known.down {
            Some(_) => known.memory.unwrap_or(remember),
            None => FRESH.min(remember),
        };
        known.since.is_none_or(|since| since.elapsed() >= believed)
    }

    async fn probe(&self, limit: Duration) {
        let began = Instant::now();
        let result = probe::probe(&self.target, limit, &self.looks).await;
        self.learn(result.err(), Some(began));
    }

    /// `began`: when the probe did that says so.
    fn learn(&self, down: Option<String>, began: Option<Instant>) {
        let mut known = self.known();
        // A command that failed meanwhile knows more than a probe.
        let reported = known.down.is_some() && known.since >= began;
        if began.is_some() && down.is_none() && reported {
            return;
        }
        let substituter = &self.shown;
        match (&known.down, &down) {
            (None, Some(reason)) => {
                tracing::warn!(%substituter, %reason, "a substituter is down: left out for now");
            }
            (Some(_), None) => tracing::info!(%substituter, "a substituter is up again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if self.is_cache {
            metrics::cache_answers(down.is_none());
        }
        *known = Known { since: Some(Instant::now()), down, memory: None };
    }
}

#[cfg(test)]
mod tests;
