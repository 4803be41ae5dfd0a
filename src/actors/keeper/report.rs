//! What the keeper tells people.

use std::time::Duration;

use crate::model::{Source, StorePath};
use crate::mount::ViewId;

#[derive(Debug, Clone, Default)]
pub struct KeptReport {
    pub kept: Vec<Kept>,
    /// What of the file that lists sources can't be used.
    pub refused: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Kept {
    pub source: Source,
    /// `waiting`, `realising`, `ready` or `failing`; a failing one may still have what it had.
    pub state: &'static str,
    /// What it is held as.
    pub root: Option<StorePath>,
    pub view: Option<ViewId>,
    /// Why it failed last.
    pub reason: Option<String>,
    /// Until it is tried again; `None` where it did not fail.
    pub again_in: Option<Duration>,
    /// The node's settings name it.
    pub is_setting: bool,
    /// Until when a person keeps it, in seconds since the epoch.
    pub until: Option<u64>,
}
