//! How much of a node a namespace's evaluations and builds may take.

use std::time::Duration;

use super::document::{Count, InvalidPolicy, invalid};
use super::rules::{By, Preset, Said};
use crate::model::VolumeSize;

/// Bytes: with less, Nix does not even start.
pub const MIN_EVALUATION_MEMORY: u64 = 64 << 20;

/// A limit, and the key of the policy that says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bound<T> {
    pub most: T,
    pub rule: String,
}

/// Of one namespace on one node. What is not limited has the node's own limits alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    builds: Said<Option<u32>>,
    evaluations: Said<Option<u32>>,
    time: Said<Option<Duration>>,
    memory: Said<Option<u64>>,
}

/// As a part of the policy has them.
pub(super) struct Written {
    pub(super) builds: Option<Count>,
    pub(super) evaluations: Option<Count>,
    pub(super) time: Option<String>,
    pub(super) memory: Option<String>,
}

const BUILDS: &str = "maxBuilds";
const EVALUATIONS: &str = "maxEvaluations";
const TIME: &str = "evaluationTime";
const MEMORY: &str = "evaluationMemory";

impl Limits {
    pub(super) fn of(preset: Preset) -> Self {
        let (at_once, time, memory) = match preset {
            Preset::Open => (None, None, None),
            // Half of the slots that a node has where nothing else is set: no team has them all.
            Preset::Strict => (Some(2), Some(Duration::from_secs(300)), Some(2 << 30)),
        };
        let by = By::Preset(preset);
        Self {
            builds: Said { value: at_once, by: by.clone() },
            evaluations: Said { value: at_once, by: by.clone() },
            time: Said { value: time, by: by.clone() },
            memory: Said { value: memory, by },
        }
    }

    /// What `part` says counts, and else what is here.
    pub(super) fn overlaid(&self, part: Written, by: &By) -> Result<Self, InvalidPolicy> {
        let time = part.time.map(|text| time(&text, by)).transpose()?;
        let memory = part.memory.map(|text| memory(&text, by)).transpose()?;
        Ok(Self {
            builds: at_once(&self.builds, part.builds, BUILDS, by)?,
            evaluations: at_once(&self.evaluations, part.evaluations, EVALUATIONS, by)?,
            time: self.time.or(time, by),
            memory: self.memory.or(memory, by),
        })
    }

    /// Fetches and builds at once.
    pub fn builds(&self) -> Option<Bound<u32>> {
        bound(&self.builds, BUILDS)
    }

    /// Evaluations at once.
    pub fn evaluations(&self) -> Option<Bound<u32>> {
        bound(&self.evaluations, EVALUATIONS)
    }

    /// Of one evaluation, with the sources that it fetches.
    pub fn time(&self) -> Option<Bound<Duration>> {
        bound(&self.time, TIME)
    }

    /// Bytes of private memory of one evaluation.
    pub fn memory(&self) -> Option<Bound<u64>> {
        bound(&self.memory, MEMORY)
    }

    /// See `Rules::list`.
    pub(super) fn list(&self) -> [(&'static str, String, String); 4] {
        let none = || "none".to_owned();
        let count = |said: &Said<Option<u32>>| said.value.map_or_else(none, |n| n.to_string());
        let time = self.time.value.map(|most| humantime::format_duration(most).to_string());
        let memory = self.memory.value.map(|most| most.to_string());
        [
            (BUILDS, count(&self.builds), self.builds.by.key(BUILDS)),
            (EVALUATIONS, count(&self.evaluations), self.evaluations.by.key(EVALUATIONS)),
            (TIME, time.unwrap_or_else(none), self.time.by.key(TIME)),
            (MEMORY, memory.unwrap_or_else(none), self.memory.by.key(MEMORY)),
        ]
    }
}

fn bound<T: Copy>(said: &Said<Option<T>>, key: &str) -> Option<Bound<T>> {
    said.value.map(|most| Bound { most, rule: said.by.key(key) })
}

/// With none at all it would wait for ever.
fn at_once(
    below: &Said<Option<u32>>,
    count: Option<Count>,
    key: &str,
    by: &By,
) -> Result<Said<Option<u32>>, InvalidPolicy> {
    let reason = "what waits would wait for ever: allow 1, or no sources to be evaluated (storePath, \
                  flakeRef, nixExpr); none is no limit";
    match count.map(Count::most) {
        None => Ok(below.clone()),
        Some(Some(0)) => Err(invalid(&by.key(key), "0", reason)),
        Some(value) => Ok(Said { value, by: by.clone() }),
    }
}

fn time(text: &str, by: &By) -> Result<Option<Duration>, InvalidPolicy> {
    if text == "none" {
        return Ok(None);
    }
    let parsed = humantime::parse_duration(text).ok().filter(|time| time.as_secs() > 0);
    let reason = "it is no time of a second or more, such as 30s or 5m; none is no limit";
    parsed.map(Some).ok_or_else(|| invalid(&by.key(TIME), text, reason))
}

fn memory(text: &str, by: &By) -> Result<Option<u64>, InvalidPolicy> {
    if text == "none" {
        return Ok(None);
    }
    let parsed = VolumeSize::parse(text).ok().map(VolumeSize::bytes);
    let parsed = parsed.filter(|bytes| *bytes >= MIN_EVALUATION_MEMORY);
    let reason = "it is no size from 64Mi to 8Ti, such as 500Mi or 2Gi; none is no limit";
    parsed.map(Some).ok_or_else(|| invalid(&by.key(MEMORY), text, reason))
}
