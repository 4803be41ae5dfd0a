//! What is kept, and what is to be done for it. Pure but for the clock of `tokio::time`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{AGAIN, Entry, Stage, Until};
use super::messages::ReleaseError;
use super::record::Recorded;
use super::report::Kept;
use crate::actors::core::jitter;
use crate::actors::views::Lease;
use crate::actors::volume::VolumeError;
use crate::model::{Source, StorePath, VolumeId};

/// A look that is to be had: by what it may be known already.
pub(super) struct Look {
    pub(super) number: u64,
    pub(super) source: Source,
    /// What is to be held if it is still there, whatever the source names by now.
    pub(super) root: Option<StorePath>,
}

/// How a look went.
pub(super) type Looked = Result<Option<Arc<Lease>>, Arc<VolumeError>>;

#[derive(Default)]
pub(super) struct Table {
    entries: BTreeMap<u64, Entry>,
    /// Never reused: a build may still wait for an earlier one.
    next: u64,
}

impl Table {
    /// Forgets everything but the numbers.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// What an earlier process kept.
    pub(super) fn restore(&mut self, recorded: Vec<Recorded>, now: Instant, wall: u64) {
        for Recorded { source, root, until, is_setting } in recorded {
            let left = |wall_end: u64| Duration::from_secs(wall_end.saturating_sub(wall));
            let entry = self.entry(&source, now);
            entry.root = Some(root);
            entry.is_setting = is_setting;
            entry.until = until.map(|wall| Until { wall, at: now + left(wall) });
        }
    }

    /// For the next process: what is known of it.
    pub(super) fn recorded(&self) -> Vec<Recorded> {
        let recorded = |entry: &Entry| {
            Some(Recorded {
                source: entry.source.clone(),
                root: entry.root.clone()?,
                until: entry.until.map(|until| until.wall),
                is_setting: entry.is_setting,
            })
        };
        self.entries.values().filter_map(recorded).collect()
    }

    /// What the settings name, as far as it was told.
    pub(super) fn settings(&self) -> Vec<Source> {
        let named = self.entries.values().filter(|entry| entry.is_setting);
        named.map(|entry| entry.source.clone()).collect()
    }

    /// These are what the settings name now; who need not wait any more.
    pub(super) fn settings_are(&mut self, sources: &[Source], now: Instant) -> Vec<VolumeId> {
        for entry in self.entries.values_mut() {
            entry.is_setting = false;
        }
        for source in sources {
            let entry = self.entry(source, now);
            entry.is_setting = true;
        }
        self.drop_unwanted()
    }

    /// A person keeps it until then, which is seconds since the epoch and on the clock.
    pub(super) fn keep(
        &mut self,
        source: &Source,
        lease: Arc<Lease>,
        (wall, at): (u64, Instant),
        now: Instant,
    ) {
        let entry = self.entry(source, now);
        entry.until = Some(Until { wall, at });
        entry.root = Some(lease.view().root.clone());
        entry.lease = Some(lease);
        (entry.failed, entry.backoff) = (None, AGAIN);
    }

    /// A person lets go of it; who need not wait any more.
    pub(super) fn release(&mut self, text: &str) -> Result<Vec<VolumeId>, ReleaseError> {
        let source_text = || text.chars().take(200).collect();
        let is_it = |entry: &Entry| {
            let is_root = |root: &StorePath| root.to_string() == text;
            // As its author wrote it, or as it is shown.
            let texts = [entry.source.text(), entry.source.public_text()];
            texts.iter().any(|own| own == text) || entry.root.as_ref().is_some_and(is_root)
        };
        let named: Vec<_> = self.entries.values_mut().filter(|entry| is_it(entry)).collect();
        if named.is_empty() {
            return Err(ReleaseError::NotKept { source_text: source_text() });
        }
        if named.iter().all(|entry| entry.until.is_none()) {
            return Err(ReleaseError::IsSetting { source_text: source_text() });
        }
        for entry in named {
            entry.until = None;
        }
        Ok(self.drop_unwanted())
    }

    /// Lets go of what was kept until now; `None`: there was nothing.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Vec<VolumeId>> {
        let mut expired = false;
        for entry in self.entries.values_mut() {
            if entry.until.is_some_and(|until| until.at <= now) {
                tracing::info!(source = ?entry.source, "not kept any longer: its time is over");
                entry.until = None;
                expired = true;
            }
        }
        expired.then(|| self.drop_unwanted())
    }

    fn drop_unwanted(&mut self) -> Vec<VolumeId> {
        let unwanted = self.entries.extract_if(.., |_, entry| !entry.is_wanted());
        unwanted.filter(|(_, e)| e.stage == Stage::Realising).map(|(n, _)| name(n)).collect()
    }

    /// The looks whose time has come.
    pub(super) fn begin_due(&mut self, now: Instant) -> Vec<Look> {
        let due = self.entries.iter_mut().filter(|(_, e)| e.stage == Stage::Idle && e.due <= now);
        due.map(|(number, entry)| {
            entry.stage = Stage::Looking;
            let holds_on = !entry.follows() || entry.lease.is_none();
            let root = entry.root.clone().filter(|_| holds_on);
            Look { number: *number, source: entry.source.clone(), root }
        })
        .collect()
    }

    /// Who is to be realised next, if nobody is: who waits longest.
    pub(super) fn begin_realising(&mut self) -> Option<(u64, VolumeId, Source)> {
        if self.entries.values().any(|entry| entry.stage == Stage::Realising) {
            return None;
        }
        let queued = self.entries.iter_mut().filter(|(_, entry)| entry.stage == Stage::Queued);
        let (number, entry) = queued.min_by_key(|(number, entry)| (entry.due, **number))?;
        entry.stage = Stage::Realising;
        Some((*number, name(*number), entry.source.clone()))
    }

    /// The end of a look, or of a realisation; whether what is to be written down has changed.
    pub(super) fn ended(
        &mut self,
        number: u64,
        looked: Looked,
        again: Duration,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&number) else {
            return false; // let go meanwhile
        };
        let was = std::mem::replace(&mut entry.stage, Stage::Idle);
        match looked {
            Ok(Some(lease)) => {
                let root = Some(lease.view().root.clone());
                let is_new = entry.root != root;
                // What the source names by now is another question than whether it is there.
                let adopted = entry.follows() && entry.lease.is_none() && was == Stage::Looking;
                entry.due = if adopted { now } else { now + again + again.mul_f64(jitter() / 4.0) };
                if is_new || entry.failed.is_some() {
                    tracing::info!(source = ?entry.source, root = %lease.view().root, "kept warm");
                }
                (entry.root, entry.lease) = (root, Some(lease));
                (entry.failed, entry.backoff) = (None, AGAIN);
                is_new
            }
            Ok(None) => {
                entry.stage = Stage::Queued;
                false
            }
            Err(error) => {
                entry.fail(&error, now);
                false
            }
        }
    }

    /// Whether all that was there once was looked for.
    pub(super) fn is_settled(&self) -> bool {
        let is_unseen = |entry: &Entry| {
            let looks = matches!(entry.stage, Stage::Idle | Stage::Looking);
            looks && entry.root.is_some() && entry.lease.is_none() && entry.failed.is_none()
        };
        !self.entries.values().any(is_unseen)
    }

    /// When something is to be done next.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.entries.values().filter(|e| e.stage == Stage::Idle).map(|e| e.due);
        let ends = self.entries.values().filter_map(|e| e.until).map(|until| until.at);
        due.chain(ends).min()
    }

    pub(super) fn kept(&self, now: Instant) -> Vec<Kept> {
        self.entries.values().map(|entry| entry.kept(now)).collect()
    }

    /// How many are in this state.
    pub(super) fn count(&self, state: &str) -> usize {
        self.entries.values().filter(|entry| entry.state() == state).count()
    }

    fn entry(&mut self, source: &Source, now: Instant) -> &mut Entry {
        let known = self.entries.iter().find(|(_, entry)| entry.source == *source);
        let number = known.map_or(self.next, |(number, _)| *number);
        self.next = self.next.max(number + 1);
        self.entries.entry(number).or_insert_with(|| Entry::new(source.clone(), now))
    }
}

/// In whose name a source is realised.
fn name(number: u64) -> VolumeId {
    VolumeId::of_keeper(number)
}
