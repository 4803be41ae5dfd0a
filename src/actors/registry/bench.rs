//! When a builder that fails is left out, and for how long. Pure: the time is told.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row: one may be the build's own fault, or a pod's that was just being replaced.
const FAILURES: u32 = 3;
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);

/// One builder's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bench {
    failures: u32,
    until: Option<Instant>,
}

impl Bench {
    /// For how long the builder is left out from now on; `None`: it is not, or was already.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        // The end of a build that was given to it before says nothing new.
        if self.is_out(now) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        // Back from the bench, the next failure is still one in the same row.
        let times = self.failures.checked_sub(FAILURES)?;
        let long = FIRST.saturating_mul(1 << times.min(10)).min(LONGEST);
        self.until = Some(now + long);
        Some(long)
    }

    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_third_failure_in_a_row_benches_and_each_after_it_for_twice_as_long() {
        let mut now = Instant::now();
        let mut bench = Bench::default();
        assert_eq!((bench.failed(now), bench.failed(now)), (None, None));
        for seconds in [30, 60, 120, 240, 480, 600, 600] {
            assert!(!bench.is_out(now));
            assert_eq!(bench.failed(now), Some(seconds * SECOND));
            assert_eq!(bench.failed(now), None, "a build that was under way");
            now += (seconds - 1) * SECOND;
            assert!(bench.is_out(now));
            now += SECOND;
        }
    }

    #[test]
    fn a_success_forgets_the_row() {
        let now = Instant::now();
        let mut bench = Bench::default();
        for _ in 0..10 {
            assert_eq!((bench.failed(now), bench.failed(now)), (None, None));
            bench.worked();
        }
        bench.failed(now);
        bench.failed(now);
        assert_eq!(bench.failed(now), Some(FIRST));
        bench.worked();
        assert!(!bench.is_out(now));
        assert_eq!(bench.failed(now), None);
    }

    #[test]
    fn no_number_of_failures_is_too_many() {
        let mut now = Instant::now();
        let mut bench = Bench { failures: u32::MAX - 1, until: None };
        for _ in 0..3 {
            assert_eq!(bench.failed(now), Some(LONGEST));
            now += LONGEST;
        }
    }
}
