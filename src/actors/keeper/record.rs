//! What is kept, on disk: `<state-dir>/kept.json`, replaced as a whole. Blocking.
//!
//! It spares the next process evaluations, and holds what a person keeps. It has sources as their authors
//! wrote them, so it is for root alone.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::lock::lock;
use crate::model::{Source, StorePath};
use crate::read::{at_most, json, short};

const VERSION: u32 = 1;
/// Bytes: hundreds of the longest expressions.
const MAX: usize = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) source: Source,
    pub(super) root: StorePath,
    /// Seconds since the epoch.
    pub(super) until: Option<u64>,
    pub(super) is_setting: bool,
}

#[derive(Serialize, Deserialize)]
struct OnDisk<L> {
    version: u32,
    kept: Vec<L>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    kind: String,
    source: String,
    root: StorePath,
    until: Option<u64>,
    setting: bool,
}

pub(super) struct RecordFile {
    path: PathBuf,
    /// An earlier life of the actor may still be writing.
    turn: Mutex<()>,
}

impl RecordFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, turn: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What can't be read of it is warm no longer, and nothing else is lost; a copy of it all is set aside.
    pub(super) fn load(&self) -> Vec<Recorded> {
        let _turn = lock(&self.turn);
        let text = match at_most(&self.path, MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let set_aside = fs::rename(&self.path, self.path.with_extension("unreadable"));
                tracing::warn!(record = %self.path.display(), %error, ?set_aside, "what was kept is forgotten");
                return Vec::new();
            }
            text => text.map_err(|error| error.to_string()),
        };
        let (kept, refused) =
            text.and_then(|text| parse(&text)).unwrap_or_else(|reason| (Vec::new(), vec![reason]));
        for reason in &refused {
            tracing::warn!(record = %self.path.display(), reason, "what was kept is forgotten");
        }
        if !refused.is_empty() {
            let aside = self.path.with_extension("unreadable");
            if let Err(error) = fs::copy(&self.path, &aside) {
                tracing::warn!(record = %self.path.display(), %error, "it can't be set aside");
            }
        }
        kept
    }

    /// Whole or not at all, also after a power failure.
    pub(super) fn save(&self, kept: Vec<Recorded>) -> io::Result<()> {
        let _turn = lock(&self.turn);
        let text = print(kept)?;
        if text.len() > MAX {
            return Err(io::Error::other(format!("it would have more than {MAX} bytes")));
        }
        let staged = self.path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&staged, &self.path)
    }
}

fn print(kept: Vec<Recorded>) -> serde_json::Result<Vec<u8>> {
    let lines = kept.into_iter().map(|recorded| Line {
        kind: recorded.source.key().to_owned(),
        source: recorded.source.text(),
        root: recorded.root,
        until: recorded.until,
        setting: recorded.is_setting,
    });
    serde_json::to_vec(&OnDisk { version: VERSION, kept: lines.collect() })
}

/// What is kept, and why some of it can't be read.
fn parse(text: &[u8]) -> Result<(Vec<Recorded>, Vec<String>), String> {
    let found: OnDisk<serde_json::Value> = json(text)?;
    if found.version != VERSION {
        return Err(format!("version {} is not {VERSION}", found.version));
    }
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for line in found.kept {
        match recorded(line) {
            Ok(recorded) => kept.push(recorded),
            Err(reason) => refused.push(reason),
        }
    }
    Ok((kept, refused))
}

fn recorded(line: serde_json::Value) -> Result<Recorded, String> {
    let line: Line = serde_json::from_value(line).map_err(|error| short(&error))?;
    let source = Source::parse(&line.kind, &line.source).map_err(|error| error.to_string())?;
    Ok(Recorded { source, root: line.root, until: line.until, is_setting: line.setting })
}

#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_record(data: &[u8]) {
    match parse(data) {
        Ok((kept, refused)) => {
            refused.iter().for_each(crate::fuzz::refusal);
            assert_eq!(parse(&print(kept.clone()).expect("JSON")), Ok((kept, Vec::new())));
        }
        Err(reason) => crate::fuzz::refusal(&reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was_and_what_cant_be_read_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::new(dir.path().join("kept.json"));
        assert!(file.load().is_empty());
        let root = StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello").unwrap();
        let sources = [Source::StorePath(root.clone()), Source::FlakeRef("github:o/r#x".into())];
        let kept = sources.map(|source| {
            let until = Some(7).filter(|_| source.key() == "flakeRef");
            Recorded { source, root: root.clone(), until, is_setting: until.is_none() }
        });
        file.save(kept.to_vec()).unwrap();
        assert_eq!(file.load(), kept);

        fs::write(file.path(), "{\"version\":2,\"kept\":[]}").unwrap();
        assert!(file.load().is_empty());
        let aside = dir.path().join("kept.unreadable");
        assert!(fs::read_to_string(&aside).unwrap().contains("\"version\":2"));

        // One that can't be read costs no other.
        file.save(kept.to_vec()).unwrap();
        let whole = fs::read_to_string(file.path()).unwrap();
        let broken = whole.replacen("storePath", "elsewhere", 1);
        assert_ne!(broken, whole);
        fs::write(file.path(), &broken).unwrap();
        assert_eq!(file.load(), kept[1..]);
        assert_eq!(fs::read_to_string(&aside).unwrap(), broken);
    }
}
