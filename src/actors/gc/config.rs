//! What the actor is told at its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::collect::Rules;
use super::used::Used;
use crate::health::Health;
use crate::nix::Garbage;

pub struct GcConfig {
    pub store: Arc<dyn Garbage>,
    pub used: Used,
    pub rules: Rules,
    /// Where our own roots are, if there are any.
    pub roots: Option<PathBuf>,
    /// Between two collections of what is old, about.
    pub interval: Duration,
    /// Between two looks at how full the disk is.
    pub look: Duration,
    /// Part of the health that is set.
    pub part: &'static str,
    pub health: Health,
    /// Parts that must be ready before the first collection: what they hold has its roots then.
    pub after: &'static [&'static str],
}
