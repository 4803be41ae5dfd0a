//! What is to go, in deletions that are short.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::collect::{Beat, Candidate, Collector};
use super::metrics;
use super::report::{CollectError, Report};
use super::water::Need;
use crate::model::StorePath;
use crate::nix::{Deletion, Freed, Garbage, NixError, Sole};

const STEP: &str = "deleting";
/// How long one deletion may hold Nix's lock, about.
const SHORT: Duration = Duration::from_millis(500);
/// Between two of them, for those who wait for the lock.
const BREATH: Duration = Duration::from_millis(20);
/// Paths of the first deletion, and of any.
const FIRST: usize = 16;
const MOST: usize = 1024;
/// Paths that can't be deleted before a collection gives up.
const MOST_STUCK: usize = 8;
/// What gives back less than this part of its size is left, where space is wanted.
const LEAST_PART: u64 = 16;

/// Deletions of one collection.
pub(super) struct Deleting<'a> {
    pub(super) by: &'a Collector,
    pub(super) beat: &'a Beat,
    pub(super) report: &'a mut Report,
    sole: Arc<Sole>,
    /// Paths of the next one.
    size: usize,
}

impl<'a> Deleting<'a> {
    pub(super) fn new(
        by: &'a Collector,
        beat: &'a Beat,
        report: &'a mut Report,
        sole: Sole,
    ) -> Self {
        Self { by, beat, report, sole: Arc::new(sole), size: FIRST }
    }

    /// Deletes all of it.
    pub(super) async fn all(&mut self, mut rest: &[Candidate]) -> Result<(), CollectError> {
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(self.size.min(rest.len()));
            rest = later;
            let freed = self.by.frees(chunk, self.beat).await?;
            self.chunk(chunk.iter().zip(freed).collect()).await?;
        }
        Ok(())
    }

    /// Deletes from the beginning until `need` is met; what of it is left.
    pub(super) async fn until(
        &mut self,
        mut need: Need,
        mut rest: &[Candidate],
    ) -> Result<Need, CollectError> {
        while !rest.is_empty() && !need.is_met() {
            let chunk = &rest[..self.size.min(rest.len())];
            let freed = self.by.frees(chunk, self.beat).await?;
            let take = enough(need, &freed);
            rest = &rest[take..];
            let is_worth = |(candidate, freed): &(&Candidate, Freed)| {
                need.inodes > 0 || freed.bytes >= candidate.nar_size / LEAST_PART
            };
            let (chosen, shared): (Vec<_>, Vec<_>) =
                chunk[..take].iter().zip(freed).partition(is_worth);
            self.report.shared += shared.len();
            let before = self.report.freed;
            self.chunk(chosen).await?;
            need = self.by.remaining(need, self.report.freed.since(before), self.beat).await?;
        }
        Ok(need)
    }

    /// Goes on with deletions that were begun, by whomever, and have not ended.
    pub(super) async fn remains(&mut self) -> Result<(), CollectError> {
        const LOOK: &str = "looking for remains";
        let sole = self.sole.clone();
        let begun = self.by.blocking(self.beat, LOOK, move |_| sole.begun()).await?;
        if begun.is_empty() {
            return Ok(());
        }
        let mut left = Vec::new();
        for path in begun {
            let one = [path.clone()];
            let look = move |store: &dyn Garbage| store.remains(&one);
            if self.by.blocking(self.beat, LOOK, look).await?.is_empty() {
                continue;
            }
            let deleting = self.by.store.delete_remains(path.clone());
            match self.by.limited(self.beat, STEP, deleting).await? {
                Ok(true) => self.report.remains += 1,
                Ok(false) => {}
                Err(error) => {
                    left.push(path.clone());
                    self.stuck(path, error)?;
                }
            }
        }
        let sole = self.sole.clone();
        let note = move |_: &dyn Garbage| sole.end().and_then(|()| sole.begin(&left));
        self.by.blocking(self.beat, LOOK, note).await
    }

    /// A few are told, and cost only themselves.
    fn stuck(&mut self, path: StorePath, error: NixError) -> Result<(), CollectError> {
        if self.report.stuck.len() >= MOST_STUCK {
            return Err(CollectError::Nix { step: STEP, error });
        }
        tracing::warn!(%path, %error, "a path can't be deleted");
        self.report.stuck.push((path, error));
        Ok(())
    }

    async fn chunk(&mut self, chunk: Vec<(&Candidate, Freed)>) -> Result<(), CollectError> {
        let began = Instant::now();
        let paths: Vec<_> = chunk.iter().map(|(candidate, _)| candidate.path.clone()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let (sole, begun) = (self.sole.clone(), paths.clone());
        self.by.blocking(self.beat, STEP, move |_| sole.begin(&begun)).await?;
        let mut todo = vec![paths];
        while let Some(paths) = todo.pop() {
            if let Some((first, second)) = self.once(paths, &chunk).await? {
                todo.extend([second, first]);
            }
        }
        let sole = self.sole.clone();
        self.by.blocking(self.beat, STEP, move |_| sole.end()).await?;
        let took = began.elapsed();
        self.size = if took > SHORT { self.size / 2 } else { self.size * 2 }.clamp(1, MOST);
        sleep(BREATH).await;
        Ok(())
    }

    /// Nix deletes these; what it can't, in two halves to be tried again.
    async fn once(
        &mut self,
        mut paths: Vec<StorePath>,
        chunk: &[(&Candidate, Freed)],
    ) -> Result<Option<(Vec<StorePath>, Vec<StorePath>)>, CollectError> {
        let deleting = self.by.store.delete(paths.clone());
        match self.by.limited(self.beat, STEP, deleting).await? {
            Ok(Deletion { deleted, alive }) => {
                for path in &alive {
                    tracing::debug!(%path, "not deleted: it became alive");
                }
                self.report.alive += alive.len();
                self.report.deleted += deleted.len();
                metrics::DELETED.inc_by(deleted.len() as u64);
                let deleted: HashSet<_> = deleted.into_iter().collect();
                for (candidate, freed) in chunk {
                    if deleted.contains(&candidate.path) {
                        metrics::FREED.inc_by(freed.bytes);
                        self.report.freed = self.report.freed.and(*freed);
                    }
                }
                Ok(None)
            }
            Err(error) if paths.len() > 1 => {
                tracing::debug!(paths = paths.len(), %error, "can't be deleted together");
                let second = paths.split_off(paths.len() / 2);
                Ok(Some((paths, second)))
            }
            Err(error) => {
                paths.pop().map_or(Ok(()), |path| self.stuck(path, error))?;
                Ok(None)
            }
        }
    }
}

/// How many of them meet the need: no more than that go.
fn enough(need: Need, freed: &[Freed]) -> usize {
    let mut sum = Freed::default();
    let last = freed.iter().position(|freed| {
        sum = sum.and(*freed);
        need.less(sum).is_met()
    });
    last.map_or(freed.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_goes_than_is_needed() {
        let freed = [3, 0, 4, 5].map(|bytes| Freed { bytes, inodes: 1 });
        let enough = |bytes, inodes| enough(Need { bytes, inodes }, &freed);
        assert_eq!((enough(3, 0), enough(4, 0), enough(8, 0), enough(99, 0)), (1, 3, 4, 4));
        assert_eq!((enough(3, 2), enough(0, 4), enough(0, 0)), (2, 4, 1));
    }
}
