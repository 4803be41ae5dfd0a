//! What a realisation has taken, for the metrics.

use std::time::Duration;

use tokio::time::Instant;

use super::Stage;
use super::activity::Activities;

/// How long something went on; what overlaps counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stretch {
    before: Option<Duration>,
    since: Option<Instant>,
}

impl Stretch {
    fn note(&mut self, goes_on: bool, now: Instant) {
        if goes_on {
            self.since.get_or_insert(now);
        } else if let Some(since) = self.since.take() {
            self.add(now - since);
        }
    }

    fn add(&mut self, time: Duration) {
        self.before = Some(self.before.unwrap_or_default() + time);
    }

    /// Until it was interrupted last; `None`: it never happened.
    pub fn taken(&self) -> Option<Duration> {
        self.before
    }
}

/// Where derivations were built; of several the last in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltOn {
    Node,
    /// The cache, by itself.
    Cache,
    /// A machine that Nix has as a builder, the node's or the cache's.
    Builders,
}

impl BuiltOn {
    /// Values of the label `where`; the first: nothing was built.
    pub const NAMES: [&str; 4] = ["none", "node", "cache", "builders"];

    pub fn as_str(of: Option<Self>) -> &'static str {
        match of {
            None => "none",
            Some(Self::Node) => "node",
            Some(Self::Cache) => "cache",
            Some(Self::Builders) => "builders",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// For slots.
    pub waited: Stretch,
    pub evaluated: Stretch,
    pub fetched: Stretch,
    pub built: Stretch,
    /// Fetched, built or both.
    pub realised: Stretch,
    pub built_on: Option<BuiltOn>,
}

impl Spent {
    pub fn in_stage(&mut self, stage: Stage, time: Duration) {
        match stage {
            Stage::QueuedEvaluation | Stage::QueuedBuild => self.waited.add(time),
            Stage::Evaluating => self.evaluated.add(time),
            // By what Nix says that it does.
            Stage::Building => {}
        }
    }

    /// After each line of a run; `there`: it is the cache's log.
    pub(super) fn note(&mut self, log: &Activities, there: bool, now: Instant) {
        let (fetches, builds) = log.fetch_and_build();
        self.fetched.note(fetches, now);
        self.built.note(builds, now);
        self.realised.note(fetches || builds, now);
        if !log.built().is_empty() {
            let by_itself = if there { BuiltOn::Cache } else { BuiltOn::Node };
            let on = if log.built_afar() { BuiltOn::Builders } else { by_itself };
            self.built_on = self.built_on.max(Some(on));
        }
    }

    /// The run is over, however it ended.
    pub(super) fn end(&mut self, now: Instant) {
        for stretch in [&mut self.fetched, &mut self.built, &mut self.realised] {
            stretch.note(false, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::Progress;
    use crate::nix::internal_log::LogReader;

    #[tokio::test(start_paused = true)]
    async fn what_overlaps_counts_once_and_what_did_not_happen_not_at_all() {
        let (mut spent, mut log) = (Spent::default(), LogReader::default());
        let mut say = async |there: bool, line: &str| {
            log.line(format!("@nix {line}").as_bytes(), &mut Progress::default());
            spent.note(log.activities(), there, Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
            spent
        };
        let start = |id: u64, kind: u64, machine: &str| {
            format!(r#"{{"action":"start","id":{id},"type":{kind},"fields":["p","{machine}"]}}"#)
        };
        let stop = |id: u64| format!(r#"{{"action":"stop","id":{id}}}"#);
        say(false, &start(1, 108, "https://c")).await;
        say(false, &start(2, 108, "https://c")).await;
        say(false, &stop(1)).await;
        let so_far = say(false, &stop(2)).await;
        assert_eq!(so_far.fetched.taken(), Some(Duration::from_secs(3)));
        assert_eq!((so_far.built.taken(), so_far.built_on), (None, None));
        say(false, &start(3, 105, "")).await;
        say(false, &start(4, 108, "https://c")).await;
        let so_far = say(true, &stop(4)).await;
        assert_eq!(so_far.built_on, Some(BuiltOn::Cache));
        assert_eq!(say(true, &start(5, 105, "ssh://m")).await.built_on, Some(BuiltOn::Builders));
        assert_eq!(say(false, &stop(9)).await.built_on, Some(BuiltOn::Builders));
        spent.end(Instant::now());
        assert_eq!(spent.fetched.taken(), Some(Duration::from_secs(4)));
        assert_eq!(spent.built.taken(), Some(Duration::from_secs(5)));
        assert_eq!(spent.realised.taken(), Some(Duration::from_secs(8)));
        for on in [None, Some(BuiltOn::Node), Some(BuiltOn::Cache), Some(BuiltOn::Builders)] {
            assert!(BuiltOn::NAMES.contains(&BuiltOn::as_str(on)));
        }
    }
}
