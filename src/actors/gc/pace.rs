//! How many paths one deletion takes. Pure.
//!
//! Each holds Nix's lock, for a time that a process, a look at all of `/proc` and one at the store's links
//! take in any case, and for some more by what is deleted. Only that can be made shorter.

use std::time::Duration;

/// How long one deletion may hold Nix's lock, about, beyond what it takes in any case.
const SHORT: Duration = Duration::from_millis(500);
/// Least time between two of them, for those who wait for the lock.
const BREATH: Duration = Duration::from_millis(20);
/// Of the time that one took: who waits may need the lock more than once.
const PART: u32 = 4;
const LONGEST_BREATH: Duration = Duration::from_secs(1);
const MOST: usize = 1024;

#[derive(Debug)]
pub(super) struct Pace {
    /// Paths of the next one.
    pub(super) size: usize,
    /// The shortest one yet, which is no more than what one takes in any case and a path.
    least: Duration,
}

impl Pace {
    /// Begins with one path.
    pub(super) fn new() -> Self {
        Self { size: 1, least: Duration::MAX }
    }

    /// After one that took so long; how long to wait before the next.
    pub(super) fn took(&mut self, took: Duration) -> Duration {
        self.least = self.least.min(took);
        let (most, more) = (SHORT.max(self.least), took.saturating_sub(self.least));
        if more > most {
            self.size = (self.size / 2).max(1);
        } else if more <= most / 2 {
            self.size = (self.size * 2).min(MOST);
        }
        (took / PART).clamp(BREATH, LONGEST_BREATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size after so many deletions that take `fixed` and `each` a path, in milliseconds.
    fn size(fixed: u64, each: u64, times: usize) -> usize {
        let mut pace = Pace::new();
        for _ in 0..times {
            let size = u64::try_from(pace.size).unwrap();
            pace.took(Duration::from_millis(fixed + each * size));
        }
        pace.size
    }

    #[test]
    fn what_one_takes_in_any_case_makes_none_smaller() {
        assert_eq!(size(30, 0, 20), MOST);
        assert_eq!(size(3000, 0, 20), MOST);
        assert!((128..=512).contains(&size(30, 2, 20)));
        assert!((512..=MOST).contains(&size(3000, 2, 20)));
        assert!(size(30, 1000, 20) <= 2);
    }

    #[test]
    fn one_large_path_at_the_beginning_does_not_count() {
        let mut pace = Pace::new();
        pace.took(Duration::from_mins(1));
        for _ in 0..20 {
            let size = u64::try_from(pace.size).unwrap();
            pace.took(Duration::from_millis(30 + 100 * size));
        }
        assert!((2..=8).contains(&pace.size), "{}", pace.size);
    }

    #[test]
    fn who_waits_has_time_in_proportion() {
        let rest = |millis| Pace::new().took(Duration::from_millis(millis));
        assert_eq!(rest(10), BREATH);
        assert_eq!(rest(400), Duration::from_millis(100));
        assert_eq!(rest(60_000), LONGEST_BREATH);
    }
}
