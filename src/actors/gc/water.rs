//! When the store's file system is too full, and how much must go. Pure.

use crate::nix::{Freed, Space};

/// Percent of a file system in use: above `high` a collection begins, and it goes on to `low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub high: u8,
    pub low: u8,
}

/// Percent below the low mark.
const BEYOND: u8 = 10;

/// Bytes and inodes that are still to be given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    pub bytes: u64,
    pub inodes: u64,
}

impl Need {
    pub fn is_met(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn less(self, freed: Freed) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(freed.bytes),
            inodes: self.inodes.saturating_sub(freed.inodes),
        }
    }

    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), inodes: self.inodes.min(other.inodes) }
    }
}

impl Watermarks {
    /// What is above the high mark, down to the low one; nothing below the high one.
    pub fn begin(self, space: &Space) -> Need {
        let above = |total, free| {
            let used = total - free;
            if used > part(total, self.high) { used - part(total, self.low) } else { 0 }
        };
        need(space, above)
    }

    /// Where something ran out of space: some more than what is above the low mark, which may not be enough
    /// for it; no more than that, since who says so may be anybody.
    pub fn beyond(self, space: &Space) -> Need {
        Self { low: self.low.saturating_sub(BEYOND), ..self }.go_on(space)
    }

    /// What is above the low mark.
    pub fn go_on(self, space: &Space) -> Need {
        need(space, |total, free| (total - free).saturating_sub(part(total, self.low)))
    }
}

/// What is free at a mark: a percentage that is in use.
pub fn free_at(percent: u8, space: &Space) -> Need {
    need(space, |total, _| total - part(total, percent))
}

fn need(space: &Space, above: impl Fn(u64, u64) -> u64) -> Need {
    let of = |total: u64, free: u64| above(total, free.min(total));
    Need { bytes: of(space.bytes, space.free_bytes), inodes: of(space.inodes, space.free_inodes) }
}

/// So many percent of it; a file system of many exabytes does not overflow.
fn part(total: u64, percent: u8) -> u64 {
    let percent = u64::from(percent);
    total / 100 * percent + total % 100 * percent / 100
}

/// Percent in use, of bytes and of inodes.
pub fn percent(space: &Space) -> (u64, u64) {
    let of = |total: u64, free: u64| {
        let used = u128::from(total - free.min(total));
        u64::try_from(used * 100 / u128::from(total.max(1))).unwrap_or(100)
    };
    (of(space.bytes, space.free_bytes), of(space.inodes, space.free_inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Watermarks = Watermarks { high: 85, low: 80 };

    fn space(bytes: u64, free_bytes: u64, inodes: u64, free_inodes: u64) -> Space {
        Space { bytes, free_bytes, inodes, free_inodes }
    }

    #[test]
    fn it_begins_above_the_high_mark_and_ends_at_the_low_one() {
        for (space, begin, go_on) in [
            (space(1000, 151, 0, 0), (0, 0), (49, 0)),
            (space(1000, 150, 0, 0), (0, 0), (50, 0)),
            (space(1000, 149, 0, 0), (51, 0), (51, 0)),
            (space(1000, 0, 0, 0), (200, 0), (200, 0)),
            (space(1000, 500, 1000, 0), (0, 200), (0, 200)),
            (space(1000, 200, 1000, 200), (0, 0), (0, 0)),
            // Free more than there is: some file systems say so.
            (space(1000, 2000, 10, 20), (0, 0), (0, 0)),
            (space(u64::MAX, u64::MAX, 0, 0), (0, 0), (0, 0)),
        ] {
            let told = |need: Need| (need.bytes, need.inodes);
            assert_eq!(told(MARKS.begin(&space)), begin, "{space:?}");
            assert_eq!(told(MARKS.go_on(&space)), go_on, "{space:?}");
        }
        assert_eq!(percent(&space(1000, 149, 10, 0)), (85, 100));
        assert_eq!(percent(&space(0, 0, 0, 0)), (0, 0));
    }

    #[test]
    fn a_need_is_met_by_what_is_freed() {
        let need = Need { bytes: 10, inodes: 2 };
        let need = need.less(Freed { bytes: 20, inodes: 1, helps: 0 });
        assert_eq!(need, Need { bytes: 0, inodes: 1 });
        assert!(!need.is_met() && need.less(Freed { bytes: 0, inodes: 9, helps: 0 }).is_met());
        assert_eq!(need.least(Need { bytes: 5, inodes: 0 }), Need::default());
    }
}
