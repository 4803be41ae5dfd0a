//! What is under way, as sums.

use std::time::Duration;

use actix::{Handler, Message};

use super::Builds;
use crate::actors::core::Ctx;
use crate::nix::Stage;

/// What is under way, for the metrics.
#[derive(Message)]
#[rtype(result = "Counts")]
pub(super) struct Count;

/// Pairs are what is done and what is expected.
#[derive(Debug, Default, actix::MessageResponse)]
pub(super) struct Counts {
    pub(super) derivations: (u64, u64),
    pub(super) bytes: (u64, u64),
    /// In the order of [`Stage::ALL`].
    pub(super) oldest: [Duration; Stage::ALL.len()],
}

impl Handler<Count> for Builds {
    type Result = Counts;

    fn handle(&mut self, _: Count, _: &mut Ctx<Self>) -> Self::Result {
        let mut counts = Counts::default();
        let add = |(done, expected): &mut (u64, u64), more: (u64, u64)| {
            *done = done.saturating_add(more.0);
            *expected = expected.saturating_add(more.1);
        };
        for work in self.in_flight.values().map(|one| &one.work) {
            work.progress.read(|p| {
                add(&mut counts.derivations, (p.builds_done, p.builds_expected));
                add(&mut counts.bytes, (p.bytes_done, p.bytes_expected));
                let age = p.since.map(|since| since.elapsed()).unwrap_or_default();
                let oldest = &mut counts.oldest[p.stage as usize];
                *oldest = age.max(*oldest);
            });
        }
        counts
    }
}
