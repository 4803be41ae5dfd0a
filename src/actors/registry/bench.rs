//! When a builder that does not answer is left out: until it does. Pure.
//!
//! No time brings it back: whoever is dead for a day would be in the file again and again, and Nix would
//! give builds to it.

/// In a row: a pod may just be being replaced, or have all hands full.
const FAILURES: u32 = 3;

/// One builder's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bench {
    failures: u32,
}

impl Bench {
    /// Whether it was in, or out, until it answered or did not.
    pub(super) fn asked(&mut self, answered: bool) -> bool {
        let before = self.is_out();
        self.failures = if answered { 0 } else { self.failures.saturating_add(1) };
        self.is_out() != before
    }

    pub(super) fn is_out(&self) -> bool {
        self.failures >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_failure_in_a_row_benches_and_an_answer_alone_brings_back() {
        let mut bench = Bench::default();
        assert_eq!([false; 3].map(|answered| bench.asked(answered)), [false, false, true]);
        for _ in 0..1000 {
            assert!(!bench.asked(false) && bench.is_out(), "that is nothing new");
        }
        assert!(bench.asked(true) && !bench.is_out());
        assert!(!bench.asked(true));
    }

    #[test]
    fn an_answer_forgets_the_row() {
        let mut bench = Bench::default();
        for answered in [false, false, true, false, false, true] {
            assert!(!bench.asked(answered));
        }
        assert_eq!(bench, Bench::default());
    }

    #[test]
    fn no_number_of_failures_is_too_many() {
        let mut bench = Bench { failures: u32::MAX - 1 };
        assert!(!bench.asked(false) && !bench.asked(false) && bench.is_out());
    }
}
