//! What views and writable volumes remember on disk. Written to a temporary name and renamed; not
//! synced, since a record of another boot is worth nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::{failed, io_error};
use super::{MountError, Presentation, ViewId};
use crate::crash::crash_point;
use crate::model::{StorePath, TargetPath, VolumeSize};
use crate::read::{at_most, json};

const VERSION: u32 = 1;

/// A store path as it was when the view was made: base name, device, inode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry(pub(super) String, pub(super) u64, pub(super) u64);

/// `view.json`: the view's layer is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ViewRecord {
    pub(super) version: u32,
    pub(super) boot_id: String,
    pub(super) root: StorePath,
    pub(super) presentation: Presentation,
    /// Some files are empty stand-ins with `trusted.overlay.metacopy`.
    pub(super) metacopy: bool,
    pub(super) nar_size: u64,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) paths: Vec<Entry>,
}

impl ViewRecord {
    pub(super) const FILE: &'static str = "view.json";
}

/// `volume.json` of a writable volume: which overlay is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    pub(super) version: u32,
    pub(super) boot_id: String,
    pub(super) view: ViewId,
    pub(super) target: TargetPath,
    /// Of the overlay's root. The device number is free for reuse when the overlay is gone, but
    /// then nothing is mounted at the target either.
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Of its own file system, if it is bounded.
    #[serde(default)]
    pub(super) size: Option<VolumeSize>,
}

impl VolumeRecord {
    pub(super) const FILE: &'static str = "volume.json";
}

/// A file of this room.
pub(super) trait Record: Serialize + DeserializeOwned {
    const NAME: &'static str;
    /// Bytes.
    const MAX: usize;
    fn version(&self) -> u32;
    fn boot_id(&self) -> &str;
}

impl Record for ViewRecord {
    const NAME: &'static str = Self::FILE;
    /// Some 300,000 paths with the longest names.
    const MAX: usize = 96 << 20;
    fn version(&self) -> u32 {
        self.version
    }
    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

impl Record for VolumeRecord {
    const NAME: &'static str = Self::FILE;
    /// A target has 4 KiB, and each byte of it may take six.
    const MAX: usize = 64 << 10;
    fn version(&self) -> u32 {
        self.version
    }
    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

pub(super) const fn version() -> u32 {
    VERSION
}

/// The record in `dir` if there is one and it is of the boot `boot_id`.
pub(super) fn read<R: Record>(dir: &Path, boot_id: &str) -> Result<Option<R>, MountError> {
    let path = dir.join(R::NAME);
    let text = match at_most(&path, R::MAX) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(failed("read", &path)(e)),
    };
    let unreadable = |reason: String| MountError::Metadata { path: path.clone(), reason };
    let record: R = parse(&text).map_err(unreadable)?;
    Ok((record.boot_id() == boot_id).then_some(record))
}

fn parse<R: Record>(text: &[u8]) -> Result<R, String> {
    let record: R = json(text)?;
    if record.version() != VERSION {
        return Err(format!("unknown version {}", record.version()));
    }
    Ok(record)
}

pub(super) fn write<R: Record>(dir: &Path, record: &R) -> Result<(), MountError> {
    let path = dir.join(R::NAME);
    let temporary = path.with_extension("tmp");
    let text = serde_json::to_vec(record)
        .map_err(|e| io_error("serialise", path.clone(), io::Error::other(e), None))?;
    if text.len() > R::MAX {
        let reason = format!("it would have more than {} bytes", R::MAX);
        return Err(MountError::Metadata { path, reason });
    }
    fs::write(&temporary, text).map_err(failed("write", &temporary))?;
    crash_point("record-temporary-written");
    fs::rename(&temporary, &path).map_err(failed("rename", &temporary))
}

/// Changes with every boot.
pub(super) fn read_boot_id() -> Result<String, MountError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    Ok(text.trim().to_owned())
}

/// Either record, and a line of the kernel's list of mounts.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_records(data: &[u8]) {
    fn again<R: Record + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<R> {
        let record: R = parse(data).inspect_err(crate::fuzz::refusal).ok()?;
        let text = serde_json::to_vec(&record).expect("JSON");
        assert_eq!(parse::<R>(&text).as_ref(), Ok(&record));
        Some(record)
    }
    if let Some(record) = again::<VolumeRecord>(data) {
        crate::fuzz::component(record.view.as_str());
        let text = serde_json::to_vec(&record).expect("JSON");
        let others = record.boot_id.len() * 6 + 1024;
        assert!(text.len() <= VolumeRecord::MAX + others, "{} bytes", text.len());
    }
    if let Some(record) = again::<ViewRecord>(data) {
        crate::fuzz::component(record.root.base_name());
    }
    super::mountinfo::fuzz(data);
}

/// The entries of `dir` whose names parse, in order.
pub(super) fn names<T>(
    dir: &Path,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, MountError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        names.extend(name.to_str().map(str::to_owned));
    }
    names.sort();
    Ok(names.iter().filter_map(|name| parse(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ViewRecord {
        ViewRecord {
            version: VERSION,
            boot_id: "now".to_owned(),
            root: StorePath::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-hello").unwrap(),
            presentation: Presentation::Redirect,
            metacopy: false,
            nar_size: 7,
            created: 1,
            paths: vec![Entry("a".to_owned(), u64::MAX, 2)],
        }
    }

    #[test]
    fn a_record_comes_back_in_its_own_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read::<ViewRecord>(dir.path(), "now").unwrap(), None);
        write(dir.path(), &record()).unwrap();
        let back = read::<ViewRecord>(dir.path(), "now").unwrap();
        assert_eq!(back, Some(record()));
        assert_eq!(read::<ViewRecord>(dir.path(), "later").unwrap(), None);
    }

    #[test]
    fn an_unreadable_record_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let newer = ViewRecord { version: VERSION + 1, ..record() };
        for text in [String::new(), "{".to_owned(), serde_json::to_string(&newer).unwrap()] {
            fs::write(dir.path().join("view.json"), &text).unwrap();
            let e = read::<ViewRecord>(dir.path(), "now").unwrap_err();
            assert!(matches!(e, MountError::Metadata { .. }), "{e}");
            assert!(dir.path().join("view.json").is_file());
        }
    }

    #[test]
    fn a_record_that_is_too_large_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join(VolumeRecord::FILE)).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = read::<VolumeRecord>(dir.path(), "boot").unwrap_err().to_string();
        assert!(error.contains("it has more than 65536 bytes"), "{error}");
    }

    /// A view's name becomes a path.
    #[test]
    fn a_view_elsewhere_is_no_views_name() {
        let record = |view: &str| {
            let text = serde_json::json!({
                "version": 1, "boot_id": "boot", "view": view, "target": "/t", "dev": 1, "ino": 2,
            });
            parse::<VolumeRecord>(text.to_string().as_bytes())
        };
        record("0123456789abcdfghijklmnpqrsvwxyz.1").unwrap();
        for bad in ["../../etc", "", ".", "0123456789abcdfghijklmnpqrsvwxyz.1/..", "x.1"] {
            assert!(record(bad).unwrap_err().contains("is no view's name"), "{bad}");
        }
    }
}
