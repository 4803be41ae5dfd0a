//! What a publish took how long, for the metrics.

use std::time::Duration;

use crate::nix::Spent;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until it is known what is wanted, and that it may be, without what has a phase of its own and without
    /// waiting for a slot.
    Resolve,
    Evaluate,
    Fetch,
    Build,
    View,
    Mount,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Resolve, Self::Evaluate, Self::Fetch, Self::Build, Self::View, Self::Mount];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Evaluate => "evaluate",
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::View => "view",
            Self::Mount => "mount",
        }
    }
}

/// Phases that did not happen have no time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// The view was not there, or it was not known that it was.
    pub is_cold: bool,
    phases: [Option<Duration>; Phase::ALL.len()],
    /// Of a resolution, what is not its own.
    apart: Duration,
}

impl Took {
    /// Nothing has ended yet.
    pub fn begun() -> Self {
        Self { is_cold: true, ..Self::default() }
    }

    pub fn view(time: Duration, was_there: bool) -> Self {
        let mut took = Self { is_cold: !was_there, apart: time, ..Self::default() };
        took.set(Phase::View, time);
        took
    }

    /// After a realisation; who joined it late waited for a part of it only.
    #[must_use]
    pub fn after(mut self, spent: &Spent) -> Self {
        self.is_cold = true;
        for (phase, stretch) in [
            (Phase::Evaluate, spent.evaluated),
            (Phase::Fetch, spent.fetched),
            (Phase::Build, spent.built),
        ] {
            self.phases[phase as usize] = stretch.taken();
        }
        for stretch in [spent.waited, spent.evaluated, spent.realised] {
            self.apart += stretch.taken().unwrap_or_default();
        }
        self
    }

    /// `whole`: of all until the view was there.
    #[must_use]
    pub fn resolved(mut self, whole: Duration) -> Self {
        self.set(Phase::Resolve, whole.saturating_sub(self.apart));
        self
    }

    pub fn set(&mut self, phase: Phase, time: Duration) {
        self.phases[phase as usize] = Some(time);
    }

    pub fn phases(&self) -> impl Iterator<Item = (Phase, Duration)> {
        Phase::ALL.into_iter().filter_map(|phase| Some((phase, self.phases[phase as usize]?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::Stage;

    #[test]
    fn each_second_is_in_one_phase_and_none_is_of_a_wait() {
        let second = Duration::from_secs(1);
        let mut spent = Spent::default();
        spent.in_stage(Stage::QueuedBuild, 5 * second);
        spent.in_stage(Stage::Evaluating, 3 * second);
        let took = Took::view(second, true).after(&spent).resolved(10 * second);
        let phases: Vec<_> = took.phases().collect();
        let expected =
            [(Phase::Resolve, second), (Phase::Evaluate, 3 * second), (Phase::View, second)];
        assert_eq!(phases, expected);
        assert!(took.is_cold && !Took::view(second, true).is_cold);
        let late = Took::view(second, false).after(&spent).resolved(2 * second);
        assert_eq!(late.phases().next(), Some((Phase::Resolve, Duration::ZERO)));
    }
}
