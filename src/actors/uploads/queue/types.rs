//! Where a closure is in the queue, and the queue's numbers.

use std::time::Duration;

use super::super::record::{Moment, Record};

/// Closures of one push.
pub const BATCH: usize = 64;
/// Closures in the queue, dead ones too.
pub const MOST: usize = 10_000;
const BACKOFF_MIN: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Of a backoff, up and down.
const JITTER: f64 = 0.2;
/// How long a dead closure is kept from collectors.
pub(super) const FORGET_AFTER: Duration = Duration::from_hours(7 * 24);
/// How long a cache may be away before what waits for it is given up.
pub(super) const OUTAGE: Duration = Duration::from_hours(7 * 24);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// Its record is being written.
    Kept,
    /// `alone`: a batch with it was refused.
    Waits {
        due: Moment,
        alone: bool,
    },
    Sent {
        alone: bool,
    },
    Dead {
        forget: Moment,
    },
}

impl Place {
    /// Its order in a list.
    pub(super) fn rank(self) -> (u8, Moment) {
        match self {
            Self::Dead { forget } => (0, forget),
            Self::Sent { .. } => (1, Moment::ZERO),
            Self::Waits { due, .. } => (2, due),
            Self::Kept => (3, Moment::ZERO),
        }
    }
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) record: Record,
    pub(super) number: u64,
    pub(super) place: Place,
}

/// What became of a closure that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Offered {
    New,
    Known,
    Full,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Counts {
    pub(in super::super) waiting: usize,
    pub(in super::super) sending: usize,
    pub(in super::super) dead: usize,
}

/// 5 s, doubling to 5 min, 20 % more or less.
pub(super) fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(BACKOFF_MAX).mul_f64(1.0 + JITTER * (2.0 * jitter - 1.0))
}

/// The longest that a closure waits for its turn.
pub(super) fn longest_backoff() -> Duration {
    BACKOFF_MAX.mul_f64(1.0 + JITTER)
}
