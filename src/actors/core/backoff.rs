//! How long to wait between tries.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Doubles from `min` to `max`, with up to a quarter of jitter; starts again after `reset` without
/// a failure; gives up after `tries` failures in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    reset: Duration,
    tries: u32,
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    pub const fn new(min: Duration, max: Duration, reset: Duration, tries: u32) -> Self {
        Self { min, max, reset, tries, failures: 0, last: None }
    }

    /// Records a failure. `None`: give up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last >= self.reset) {
            self.failures = 0;
        }
        self.last = Some(now);
        self.failures += 1;
        if self.failures > self.tries {
            return None;
        }
        let doubled = self.min.saturating_mul(1 << (self.failures - 1).min(20)).min(self.max);
        Some(doubled + doubled.mul_f64(jitter() / 4.0))
    }
}

/// A number in 0..1; spreads tries, needs no quality.
pub fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 40;
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let value = bits as f64 / f64::from(1u32 << 24);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn doubles_to_the_maximum_and_gives_up() {
        let mut b = Backoff::new(SECOND, 5 * SECOND, 60 * SECOND, 5);
        let delays: Vec<u64> = std::iter::from_fn(|| b.next_delay()).map(|d| d.as_secs()).collect();
        // Each is base plus less than a quarter of it.
        assert_eq!(delays[..3].iter().zip([1, 2, 4]).filter(|(d, b)| **d != *b).count(), 0);
        assert!(delays[3..].iter().all(|d| (5..=6).contains(d)));
        assert_eq!(delays.len(), 5);
        assert_eq!(b.next_delay(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_time_forgives() {
        let mut b = Backoff::new(SECOND, 5 * SECOND, 60 * SECOND, 1);
        assert!(b.next_delay().is_some());
        tokio::time::advance(61 * SECOND).await;
        assert!(b.next_delay().is_some());
        assert!(b.next_delay().is_none());
    }
}
