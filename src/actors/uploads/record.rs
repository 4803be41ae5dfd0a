//! The record of a closure that waits to be uploaded. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::StorePath;
use crate::read::json;

const VERSION: u32 = 1;
/// Bytes of one; an error in it has 4 KiB at most.
pub(super) const MAX: usize = 64 << 10;

/// Since the epoch.
pub(super) type Moment = Duration;

/// One closure, by its root. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) path: StorePath,
    pub(super) queued_at: u64,
    pub(super) attempts: u32,
    /// Attempts to which the cache itself said no.
    #[serde(default)]
    pub(super) refusals: u32,
    pub(super) last_error: Option<String>,
    pub(super) next_attempt: Option<u64>,
    /// Given up: a dead letter.
    pub(super) dead: bool,
    pub(super) dead_since: Option<u64>,
}

impl Record {
    pub(super) fn new(path: StorePath, now: Moment) -> Self {
        Self {
            version: VERSION,
            path,
            queued_at: now.as_secs(),
            attempts: 0,
            refusals: 0,
            last_error: None,
            next_attempt: None,
            dead: false,
            dead_since: None,
        }
    }

    /// Of the file `name`, which has the path's hash.
    pub(super) fn parse(text: &[u8], name: &Path) -> Result<Self, String> {
        let record: Self = json(text)?;
        if record.version != VERSION {
            return Err(format!("version {} is not {VERSION}", record.version));
        }
        if name.file_name() != Some(file_name(&record.path).as_ref()) {
            return Err(format!("it is of {}, which its name is not", record.path));
        }
        Ok(record)
    }
}

pub(super) fn file_name(path: &StorePath) -> String {
    format!("{}.json", path.hash())
}

/// A file among the records that is none that we can read. It is kept.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub path: PathBuf,
    pub reason: String,
}

/// Of any closure: the file's name is taken from the record itself.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_record(data: &[u8]) {
    let path = |text: &[u8]| serde_json::from_slice::<Record>(text).ok().map(|record| record.path);
    let name = path(data).map_or_else(|| "x.json".to_owned(), |path| file_name(&path));
    crate::fuzz::component(&name);
    match Record::parse(data, Path::new(&name)) {
        Ok(record) => {
            let text = serde_json::to_vec(&record).expect("JSON");
            assert_eq!(Record::parse(&text, &Path::new("/dir").join(&name)), Ok(record));
        }
        Err(reason) => crate::fuzz::refusal(&reason),
    }
}
