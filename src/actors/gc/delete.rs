//! What is to go, in deletions that are short.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::collect::{Beat, Candidate, Collector};
use super::metrics;
use super::pace::Pace;
use super::report::{CollectError, Report};
use super::water::Need;
use crate::model::StorePath;
use crate::nix::{Deletion, Freed, Garbage, NixError, Sole};

const STEP: &str = "deleting";
/// Paths of which it is looked at once what they give back.
const WINDOW: usize = 512;
/// Paths that are looked at once more, and together.
const MOST_LEFT: usize = 16 * WINDOW;
/// Paths that can't be deleted before a collection gives up.
const MOST_STUCK: usize = 8;
/// Where space is wanted, what gives back less than this part of its size is left
const LEAST_PART: u64 = 16;
/// if it has so many bytes: it costs nobody much to have it again, and it may keep what does.
const LARGE: u64 = 64 << 10;

/// What to delete, and what that gives back.
type Looked<'a> = (&'a Candidate, Freed);

/// Deletions of one collection.
pub(super) struct Deleting<'a> {
    pub(super) by: &'a Collector,
    pub(super) beat: &'a Beat,
    pub(super) report: &'a mut Report,
    sole: Arc<Sole>,
    pace: Pace,
    /// What could not be deleted, since stuck paths were counted anew.
    stuck: usize,
    /// What was looked at for space, and is there still.
    left: Vec<Candidate>,
}

impl<'a> Deleting<'a> {
    pub(super) fn new(
        by: &'a Collector,
        beat: &'a Beat,
        report: &'a mut Report,
        sole: Sole,
    ) -> Self {
        let (sole, pace) = (Arc::new(sole), Pace::new());
        Self { by, beat, report, sole, pace, stuck: 0, left: Vec::new() }
    }

    /// Deletes all of it.
    pub(super) async fn all(&mut self, rest: &[Candidate]) -> Result<(), CollectError> {
        for window in rest.chunks(WINDOW) {
            let looked = self.look(window).await?;
            self.in_chunks(&looked).await?;
        }
        Ok(())
    }

    async fn in_chunks(&mut self, mut rest: &[Looked<'_>]) -> Result<(), CollectError> {
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(self.pace.size.min(rest.len()));
            rest = later;
            self.chunk(chunk).await?;
        }
        Ok(())
    }

    /// Deletes from the beginning until `need` is met; what of it is left.
    pub(super) async fn until(
        &mut self,
        mut need: Need,
        mut rest: &[Candidate],
    ) -> Result<Need, CollectError> {
        self.stuck = 0;
        while !rest.is_empty() && !need.is_met() {
            let (window, later) = rest.split_at(WINDOW.min(rest.len()));
            rest = later;
            let looked = self.look(window).await?;
            need = self.some(need, &looked).await?;
        }
        Ok(need)
    }

    async fn some(
        &mut self,
        mut need: Need,
        mut rest: &[Looked<'_>],
    ) -> Result<Need, CollectError> {
        while !rest.is_empty() && !need.is_met() {
            let take = enough(need, rest).min(self.pace.size);
            let (chunk, later) = rest.split_at(take);
            rest = later;
            let chosen: Vec<_> =
                chunk.iter().filter(|looked| is_worth(need, looked)).copied().collect();
            self.report.shared += take - chosen.len();
            let (before, alive) = (self.report.freed, self.report.alive);
            let deleted = self.chunk(&chosen).await?;
            // Maybe for want of what is left: it is tried again.
            self.report.alive = alive;
            let left = chunk.iter().map(|(candidate, _)| *candidate);
            let is_stuck = |path| self.report.stuck.iter().any(|(stuck, _)| stuck == path);
            let left = left.filter(|candidate| {
                !deleted.contains(&candidate.path) && !is_stuck(&candidate.path)
            });
            let room = MOST_LEFT.saturating_sub(self.left.len());
            let left: Vec<_> = left.take(room).cloned().collect();
            self.left.extend(left);
            need = self.by.remaining(need, self.report.freed.since(before), self.beat).await?;
        }
        Ok(need)
    }

    /// What is left has to be looked at anew.
    pub(super) fn again(&mut self) {
        self.left.clear();
        self.report.shared = 0;
    }

    /// What gives back little by itself may give much with others, that share its files or that it needs: all
    /// that is left, as one.
    pub(super) async fn together(&mut self, need: Need) -> Result<Need, CollectError> {
        let left = std::mem::take(&mut self.left);
        if need.is_met() || left.is_empty() {
            return Ok(need);
        }
        let looked = self.look(&left).await?;
        let last = looked.iter().rposition(|looked| is_worth(need, looked)).map_or(0, |at| at + 1);
        let chosen = &looked[..last.min(enough(need, &looked))];
        self.report.shared = looked.len() - chosen.len();
        let before = self.report.freed;
        self.in_chunks(chosen).await?;
        self.by.remaining(need, self.report.freed.since(before), self.beat).await
    }

    async fn look<'b>(&self, window: &'b [Candidate]) -> Result<Vec<Looked<'b>>, CollectError> {
        Ok(window.iter().zip(self.by.frees(window, self.beat).await?).collect())
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
        if self.stuck >= MOST_STUCK {
            return Err(CollectError::Stuck { path, error });
        }
        self.stuck += 1;
        tracing::warn!(%path, %error, "a path can't be deleted");
        self.report.stuck.push((path, error));
        Ok(())
    }

    /// Those that are gone, by whomever.
    async fn chunk(&mut self, chunk: &[Looked<'_>]) -> Result<HashSet<StorePath>, CollectError> {
        let began = Instant::now();
        let paths: Vec<_> = chunk.iter().map(|(candidate, _)| candidate.path.clone()).collect();
        let mut gone: HashSet<_> = paths.iter().cloned().collect();
        if paths.is_empty() {
            return Ok(gone);
        }
        let (sole, begun) = (self.sole.clone(), paths.clone());
        self.by.blocking(self.beat, STEP, move |_| sole.begin(&begun)).await?;
        let mut todo = vec![paths];
        while let Some(paths) = todo.pop() {
            if let Some((first, second)) = self.once(paths, chunk, &mut gone).await? {
                todo.extend([second, first]);
            }
        }
        let sole = self.sole.clone();
        self.by.blocking(self.beat, STEP, move |_| sole.end()).await?;
        sleep(self.pace.took(began.elapsed())).await;
        Ok(gone)
    }

    /// Nix deletes these; what it can't, in two halves to be tried again.
    async fn once(
        &mut self,
        mut paths: Vec<StorePath>,
        chunk: &[Looked<'_>],
        gone: &mut HashSet<StorePath>,
    ) -> Result<Option<(Vec<StorePath>, Vec<StorePath>)>, CollectError> {
        let deleting = self.by.store.delete(paths.clone());
        match self.by.limited(self.beat, STEP, deleting).await? {
            Ok(Deletion { deleted, alive }) => {
                for path in &alive {
                    tracing::debug!(%path, "not deleted: it is alive");
                    gone.remove(path);
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
                if let Some(path) = paths.pop() {
                    gone.remove(&path);
                    self.stuck(path, error)?;
                }
                Ok(None)
            }
        }
    }
}

fn is_worth(need: Need, (candidate, freed): &Looked<'_>) -> bool {
    let size = candidate.nar_size;
    need.inodes > 0 || size < LARGE || freed.bytes + freed.helps >= size / LEAST_PART
}

/// How many of them meet the need: no more than that go.
fn enough(need: Need, looked: &[Looked<'_>]) -> usize {
    let mut sum = Freed::default();
    let last = looked.iter().position(|(_, freed)| {
        sum = sum.and(*freed);
        need.less(sum).is_met()
    });
    last.map_or(looked.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(nar_size: u64) -> Candidate {
        let path = StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x").unwrap();
        Candidate { path, used: 0, nar_size }
    }

    #[test]
    fn no_more_goes_than_is_needed() {
        let one = candidate(1);
        let looked =
            [3, 0, 4, 5].map(|bytes| (&one, Freed { bytes, inodes: 1, ..Freed::default() }));
        let enough = |bytes, inodes| enough(Need { bytes, inodes }, &looked);
        assert_eq!((enough(3, 0), enough(4, 0), enough(8, 0), enough(99, 0)), (1, 3, 4, 4));
        assert_eq!((enough(3, 2), enough(0, 4), enough(0, 0)), (2, 4, 1));
    }

    #[test]
    fn what_is_large_and_gives_little_is_left() {
        let is_worth = |inodes, size, bytes, helps| {
            is_worth(
                Need { bytes: 1, inodes },
                &(&candidate(size), Freed { bytes, inodes: 1, helps }),
            )
        };
        assert!(!is_worth(0, 160_000, 9_999, 0));
        assert!(is_worth(0, 160_000, 10_000, 0) && is_worth(0, 160_000, 1_000, 9_000));
        assert!(is_worth(1, 160_000, 0, 0) && is_worth(0, 60_000, 0, 0));
    }
}
