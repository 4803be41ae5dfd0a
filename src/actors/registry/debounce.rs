//! When to write after a change. Pure: the time is told.

use std::time::Duration;

use tokio::time::Instant;

/// The longest that a change waits, whatever comes after it.
const LONGEST: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Debounce {
    quiet: Duration,
    /// The first change that waits, and the last.
    waiting: Option<(Instant, Instant)>,
}

impl Debounce {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, waiting: None }
    }

    /// True: nothing was waiting before, so somebody must look at [`Debounce::due`].
    pub(super) fn changed(&mut self, now: Instant) -> bool {
        let first = self.waiting.map(|(first, _)| first);
        self.waiting = Some((first.unwrap_or(now), now));
        first.is_none()
    }

    /// When what waits is due; a further change may put it off.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.map(|(first, last)| (last + self.quiet).min(first + LONGEST))
    }

    pub(super) fn done(&mut self) {
        self.waiting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_for_quiet_but_not_for_long() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut debounce = Debounce::new(Duration::from_millis(200));
        assert_eq!(debounce.due(), None);
        assert!(debounce.changed(at(0)));
        assert_eq!(debounce.due(), Some(at(200)));
        assert!(!debounce.changed(at(150)));
        assert_eq!(debounce.due(), Some(at(350)));
        for millis in (200..=1900).step_by(100) {
            assert!(!debounce.changed(at(millis)));
        }
        assert_eq!(debounce.due(), Some(at(2000)));
        debounce.done();
        assert_eq!(debounce.due(), None);
        assert!(debounce.changed(at(5000)));
        assert_eq!(debounce.due(), Some(at(5200)));
    }
}
