//! What works on blocking threads, which nothing can stop: one that hangs must be the last.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::report::CollectError;

use crate::lock::lock;

/// Those of one collector; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Threads(Arc<Mutex<Vec<(&'static str, Instant)>>>);

/// Until it is dropped, a thread is at work.
#[derive(Debug)]
pub(super) struct AtWork(Threads, (&'static str, Instant));

impl Threads {
    pub(super) fn begin(&self, step: &'static str) -> AtWork {
        let what = (step, Instant::now());
        self.with(|all| all.push(what));
        AtWork(self.clone(), what)
    }

    /// Who is at work for longer than the time limit of a step hangs: nobody waits for it.
    pub(super) fn none_hangs(&self, limit: Duration) -> Result<(), CollectError> {
        let since = |(step, since): &(&'static str, Instant)| {
            let time = Duration::from_secs(since.elapsed().as_secs());
            CollectError::Hangs { step, time }
        };
        let hangs = |(_, since): &&(_, Instant)| since.elapsed() >= limit;
        self.with(|all| all.iter().find(hangs).map(since)).map_or(Ok(()), Err)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<(&'static str, Instant)>) -> T) -> T {
        work(&mut lock(&self.0))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.with(|all| {
            if let Some(at) = all.iter().position(|one| *one == self.1) {
                all.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_hangs_is_named_until_it_ends() {
        let threads = Threads::default();
        let hangs = || threads.none_hangs(Duration::from_secs(70));
        let first = threads.begin("planning");
        tokio::time::advance(Duration::from_secs(69)).await;
        hangs().unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(threads.begin("planning"));
        let error = hangs().unwrap_err().to_string();
        assert_eq!(error, "planning has hung for 1m 10s: the file system does not answer");
        drop(first);
        hangs().unwrap();
    }
}
