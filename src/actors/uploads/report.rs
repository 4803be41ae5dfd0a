//! What the uploader tells people.

use std::time::Duration;

use super::Unreadable;
use super::queue::{Place, Queue};
use super::record::{Moment, Record};
use crate::model::StorePath;

/// Closures of one report: more than a person reads, and less than one gRPC message holds.
const SHOWN: usize = 1000;

/// Values of `outcome` in `nixcsi_uploads_total`.
pub(super) const OUTCOMES: [&str; 6] = ["ok", "temporary", "refused", "gone", "dead", "forgotten"];

#[derive(Debug, Clone)]
pub struct UploadsReport {
    /// Where closures go, without a password.
    pub destination: String,
    pub waiting: usize,
    pub sending: usize,
    pub dead: usize,
    /// The first ones: dead ones, those that are sent, those that wait.
    pub uploads: Vec<UploadSummary>,
    pub unreadable: Vec<Unreadable>,
}

#[derive(Debug, Clone)]
pub struct UploadSummary {
    pub path: StorePath,
    /// `waiting`, `sending` or `dead`.
    pub state: &'static str,
    pub attempts: u32,
    /// Seconds since the epoch.
    pub queued_at: u64,
    /// Until the next attempt; `None` where there is none to wait for.
    pub again_in: Option<Duration>,
    pub last_error: Option<String>,
}

impl UploadsReport {
    pub(super) fn new(
        queue: &Queue,
        destination: String,
        unreadable: Vec<Unreadable>,
        now: Moment,
    ) -> Self {
        let counts = queue.counts();
        let all = queue.all().into_iter().take(SHOWN);
        let uploads = all.map(|(record, place)| summary(record, place, queue, now)).collect();
        Self {
            destination,
            waiting: counts.waiting,
            sending: counts.sending,
            dead: counts.dead,
            uploads,
            unreadable,
        }
    }
}

fn summary(record: &Record, place: Place, queue: &Queue, now: Moment) -> UploadSummary {
    let (state, again_in) = match place {
        Place::Kept => ("waiting", None),
        Place::Waits { due, .. } => {
            let left = due.max(queue.paused_until()).saturating_sub(now);
            ("waiting", (!left.is_zero()).then_some(left))
        }
        Place::Sent { .. } => ("sending", None),
        Place::Dead { .. } => ("dead", None),
    };
    UploadSummary {
        path: record.path.clone(),
        state,
        attempts: record.attempts,
        queued_at: record.queued_at,
        again_in,
        last_error: record.last_error.clone(),
    }
}
