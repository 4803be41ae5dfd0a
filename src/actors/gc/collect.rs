//! One collection: roots first, then what is to go, then Nix deletes it, which looks for itself.
//!
//! Nothing is excluded by it but what Nix itself excludes while one of its deletions runs, and each is kept
//! short. Every step has a time limit, and the next collection begins anew.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::delete::Deleting;
use super::holders::Holders;
use super::metrics;
use super::pinned::Pinned;
use super::plan::{Dead, dead};
use super::report::{CollectError, Report};
use super::threads::Threads;
use super::used::{Used, Uses};
use super::water::{Need, Watermarks};
use super::why::drivers_directory;
use crate::actors::core::blocking;
use crate::lock::lock;
use crate::model::{Index, StoreGraph, StorePath};
use crate::nix::{Freed, Garbage, NixError, Space};
use crate::trace;

/// Of a file system that notes when a file was read once in so long (mount(8), relatime).
const RELATIME: Duration = Duration::from_hours(24);
/// Where space is wanted, what was not used for so long goes before all that is younger.
const GROUPS: [Duration; 4] = [
    Duration::from_hours(7 * 24),
    Duration::from_hours(24),
    Duration::from_hours(4),
    Duration::from_hours(1),
];

#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What nothing holds and was not used for so long goes; `None`: age does not count.
    pub older_than: Option<Duration>,
    /// What came or was used within this stays, however full the disk is.
    pub grace: Duration,
    /// `None`: how full the disk is does not count, and neither does what ran out of space.
    pub watermarks: Option<Watermarks>,
    /// Longest time of one step.
    pub step: Duration,
    /// Who reads a path in the store uses it: on a cache, which serves others.
    pub reading_is_use: bool,
}

/// Where a collection is, and since when.
#[derive(Debug, Clone)]
pub struct Beat(Arc<Mutex<(&'static str, Instant)>>);

impl Default for Beat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(("the start", Instant::now()))))
    }
}

impl Beat {
    fn at(&self, step: &'static str) {
        *lock(&self.0) = (step, Instant::now());
    }

    /// The step under way, and for how long.
    pub fn last(&self) -> (&'static str, Duration) {
        let (step, since) = *lock(&self.0);
        (step, since.elapsed())
    }
}

/// A path that could go.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) path: StorePath,
    pub(super) used: u64,
    pub(super) nar_size: u64,
}

/// Everything that a collection works with.
#[derive(Clone)]
pub struct Collector {
    pub store: Arc<dyn Garbage>,
    pub used: Used,
    pub holders: Holders,
    pub rules: Rules,
    /// Where our own roots are, if there are any.
    pub roots: Option<PathBuf>,
    /// Something ran out of space.
    pub wanted: bool,
    pub threads: Threads,
}

impl Collector {
    /// `Ok(None)`: another collector of ours is at work.
    pub async fn collect(self, beat: Beat) -> Result<Option<Report>, CollectError> {
        self.threads.none_hangs(self.rules.step)?;
        let settled = self.limited(&beat, "looking for what is kept", self.holders.settle()).await;
        if let Err(error) = settled {
            // What may be lost is warmth, and space is more.
            tracing::warn!(%error, "collecting without waiting for what is kept");
        }
        let Some(sole) = self.blocking(&beat, "taking the lock", Garbage::sole).await? else {
            return Ok(None);
        };
        let leaked = self.limited(&beat, "looking for leaked roots", self.holders.sweep()).await?;
        metrics::LEAKED_ROOTS.inc_by(leaked.len() as u64);
        let mut report = Report { leaked, ..Report::default() };
        let space = self.space(&beat).await?;
        let begin = if self.wanted { Watermarks::beyond } else { Watermarks::begin };
        let marks = self.rules.watermarks;
        let mut need = marks.map_or_else(Need::default, |marks| begin(marks, &space));
        let noted = self.holders.note_mounted(&self.used);
        self.limited(&beat, "asking what is mounted", noted).await?;
        let plan = self.plan(&beat, &mut report).await?;
        let rules = self.rules;
        let old = rules.older_than.map_or(0, |age| self.unused(&plan, age.max(rules.grace)));
        let mut deleting = Deleting::new(&self, &beat, &mut report, sole);
        deleting.remains().await?;
        let aged = deleting.all(&plan[..old]).await;
        if !need.is_met() && aged.as_ref().err().is_none_or(CollectError::is_of_paths) {
            need = self.remaining(need, deleting.report.freed, &beat).await?;
            need = self.relieve(need, &mut deleting, (plan, old)).await?;
        }
        aged?;
        report.settle_pinned();
        report.space = self.space(&beat).await?;
        // Below the high mark there is nothing to complain of.
        report.left = match marks {
            Some(marks) if self.wanted => marks.begin(&report.space),
            _ => need,
        };
        Ok(Some(report))
    }

    /// Deletes of a plan, from a place on, until `need` is met; what of it is left. What was used least
    /// recently goes first, in groups: in each of them first the views that nobody uses.
    async fn relieve(
        &self,
        mut need: Need,
        deleting: &mut Deleting<'_>,
        (mut plan, mut seen): (Vec<Candidate>, usize),
    ) -> Result<Need, CollectError> {
        let (beat, grace) = (deleting.beat, self.rules.grace);
        for least in GROUPS.into_iter().filter(|least| *least > grace).chain([grace]) {
            if need.is_met() {
                break;
            }
            let evicted = self.holders.evict_idle(least);
            let evicted = self.limited(beat, "removing idle views", evicted).await?;
            if evicted > 0 {
                deleting.report.views += evicted;
                deleting.again();
                (plan, seen) = (self.plan(beat, deleting.report).await?, 0);
            }
            let end = self.unused(&plan, least).max(seen);
            need = deleting.until(need, &plan[seen..end]).await?;
            seen = end;
        }
        deleting.together(need).await
    }

    /// How many of a plan were not used for so long.
    fn unused(&self, plan: &[Candidate], least: Duration) -> usize {
        let before = self.used.now().saturating_sub(least.as_secs());
        plan.partition_point(|candidate| candidate.used <= before)
    }

    /// By what was freed, since some file systems give it back later; and no more than is lacking.
    pub(super) async fn remaining(
        &self,
        need: Need,
        freed: Freed,
        beat: &Beat,
    ) -> Result<Need, CollectError> {
        let need = need.less(freed);
        let go_on = if self.wanted { Watermarks::beyond } else { Watermarks::go_on };
        Ok(match self.rules.watermarks {
            Some(marks) => need.least(go_on(marks, &self.space(beat).await?)),
            None => need,
        })
    }

    async fn space(&self, beat: &Beat) -> Result<Space, CollectError> {
        self.blocking(beat, "asking for the space", Garbage::space).await
    }

    /// What nothing holds, least recently used first, referrers before what they refer to.
    async fn plan(&self, beat: &Beat, report: &mut Report) -> Result<Vec<Candidate>, CollectError> {
        // First what holds, then what there is: what came in between is held by nobody, and is young.
        let roots = self.limited(beat, "finding the roots", self.store.roots()).await?;
        let roots =
            roots.map_err(|error| CollectError::Nix { step: "finding the roots", error })?;
        report.others.clear();
        for dir in roots.iter().filter_map(|root| drivers_directory(&root.name)) {
            if self.roots.as_deref() != Some(Path::new(dir)) {
                *report.others.entry(dir.to_owned()).or_default() += 1;
            }
        }
        let (used, by_reading) = (self.used.clone(), self.rules.reading_is_use);
        let planned = self.blocking(beat, "planning", move |store| {
            let graph = store.graph()?;
            let pinned = Pinned::of(&graph, &roots);
            let reached = graph.reached(roots.iter().filter_map(|root| graph.find(&root.path)));
            used.flush();
            let mut uses = used.all();
            used.forget_gone(&uses, &graph);
            if by_reading {
                add_readings(&mut uses, (&graph, &reached), store, used.now());
            }
            Ok((candidates(&graph, &dead(&graph, &reached, &uses)), pinned))
        });
        let (plan, pinned) = planned.await?;
        (report.pinned, report.deleted_before) = (pinned, report.deleted);
        Ok(plan)
    }

    pub(super) async fn frees(
        &self,
        chunk: &[Candidate],
        beat: &Beat,
    ) -> Result<Vec<Freed>, CollectError> {
        let paths: Vec<_> = chunk.iter().map(|candidate| candidate.path.clone()).collect();
        self.blocking(beat, "looking what it frees", move |store| store.frees(&paths)).await
    }

    /// A step on a blocking thread. One that takes too long is left to itself.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        beat: &Beat,
        step: &'static str,
        work: impl FnOnce(&dyn Garbage) -> Result<T, NixError> + Send + 'static,
    ) -> Result<T, CollectError> {
        let store = self.store.clone();
        let at_work = self.threads.begin(step);
        let work = blocking(move || {
            let _at_work = at_work;
            work(&*store)
        });
        let done = self.limited(beat, step, work).await?;
        let done = done.map_err(|panic| CollectError::Ended { step, reason: panic.to_string() })?;
        done.map_err(|error| CollectError::Nix { step, error })
    }

    pub(super) async fn limited<T>(
        &self,
        beat: &Beat,
        step: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, CollectError> {
        beat.at(step);
        let limit = self.rules.step;
        let done = async {
            timeout(limit, work).await.map_err(|_| CollectError::TimedOut { step, limit })
        };
        trace::phase(trace::below!("step", otel.name = step), done).await
    }
}

fn candidates(graph: &StoreGraph, dead: &[Dead]) -> Vec<Candidate> {
    let candidate = |dead: &Dead| {
        let known = graph.path(dead.path);
        Candidate { path: known.path.clone(), used: dead.used, nar_size: known.nar_size }
    };
    dead.iter().map(candidate).collect()
}

/// Blocking. Who reads a path that nothing holds uses it. `reached`: see [`StoreGraph::reached`].
pub fn add_readings(
    uses: &mut Uses,
    (graph, reached): (&StoreGraph, &[Option<Index>]),
    store: &dyn Garbage,
    now: u64,
) {
    let unheld = graph.indices().filter(|path| reached[*path as usize].is_none());
    let unheld: Vec<_> = unheld.map(|path| graph.path(path).path.clone()).collect();
    add(uses, &unheld, &store.last_read(&unheld), now);
}

/// A reading that was noted stands for all within the time in which no other is.
fn add(uses: &mut Uses, paths: &[StorePath], read: &[Option<u64>], now: u64) {
    for (path, read) in paths.iter().zip(read) {
        if let Some(read) = read {
            let latest = read.saturating_add(RELATIME.as_secs()).min(now);
            let known = uses.known.entry(path.clone()).or_default();
            *known = latest.max(*known);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_reading_counts_until_another_would_be_noted() {
        let path = |n: u32| StorePath::parse(&format!("/nix/store/{n:0>32}-p")).unwrap();
        let day = RELATIME.as_secs();
        let mut uses = Uses { known: HashMap::from([(path(1), 7 * day)]), since: 0 };
        let paths = [path(1), path(2), path(3)];
        add(&mut uses, &paths, &[Some(day), Some(day), None], 5 * day);
        let of = |n| uses.of(&path(n), 0);
        assert_eq!((of(1), of(2), of(3)), (7 * day, 2 * day, 0));
        add(&mut uses, &paths, &[None, Some(5 * day), None], 5 * day);
        assert_eq!(uses.of(&path(2), 0), 5 * day, "nothing is used in the future");
    }
}
