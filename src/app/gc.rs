//! From settings to the collector.

use std::time::Duration;

use super::NodeError;
use crate::actors::gc::Rules;
use crate::actors::gc::used::{Used, wall_clock};
use crate::actors::node::{DAEMON, GcActorConfig, VOLUMES};
use crate::config::{GcSettings, ProcessSettings};

/// Below the state directory.
pub(crate) const USED: &str = "used.sqlite";

const HOUR: Duration = Duration::from_hours(1);

pub(super) fn used(process: &ProcessSettings) -> Used {
    Used::open(&process.state_dir.join(USED), wall_clock())
}

pub(super) fn node(settings: &GcSettings) -> Result<GcActorConfig, NodeError> {
    config(settings, HOUR, false, &[DAEMON, VOLUMES])
}

pub(super) fn cache(settings: &GcSettings) -> Result<GcActorConfig, NodeError> {
    config(settings, 24 * HOUR, true, &[DAEMON])
}

fn config(
    settings: &GcSettings,
    older_than: Duration,
    reading_is_use: bool,
    after: &'static [&'static str],
) -> Result<GcActorConfig, NodeError> {
    let rules = Rules {
        older_than: settings.gc_older_than.unwrap_or(older_than),
        grace: settings.gc_grace,
        watermarks: settings.watermarks().map_err(NodeError)?,
        step: settings.gc_step_timeout,
        reading_is_use,
    };
    let (interval, look) = (settings.gc_interval, settings.gc_look_interval);
    Ok(GcActorConfig { rules, interval, look, after })
}
