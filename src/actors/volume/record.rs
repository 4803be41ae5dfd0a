//! The record of a volume, one JSON file each, written before the world is changed.
//!
//! Volumes don't survive a reboot, so nothing here is fsynced: a killed process loses no page
//! cache, and a record of another boot id is only a list of files to clear.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::VolumeError;
use super::machine::Request;
use crate::model::{
    Access, Layout, PodInfo, Shape, Source, StorePath, System, TargetPath, VolumeId, VolumeSize,
    VolumeSpec, choose_source,
};
use crate::mount::ViewId;
use crate::read::{at_most, json};

const VERSION: u32 = 1;
/// Bytes of one: attributes have 128 KiB, of which each may take six, and a target 4.
const MAX: usize = 1 << 20;

/// What a restart needs to know about a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub id: VolumeId,
    pub target: TargetPath,
    pub access: Access,
    pub access_mode: i32,
    /// The user's attributes literally.
    pub attributes: BTreeMap<String, String>,
    pub pod: Option<PodInfo>,
    #[serde(default)]
    pub layout: Layout,
    /// How much may be written, if that is bounded.
    #[serde(default)]
    pub size: Option<VolumeSize>,
    /// What the source resolved to; it stays so until the volume is unpublished.
    pub root: StorePath,
    pub view: ViewId,
    /// Of a flake: the commit, or else the hash of its source.
    #[serde(default)]
    pub revision: Option<String>,
    pub boot_id: String,
    /// Seconds since the epoch.
    pub published_at: i64,
}

impl Record {
    pub fn new(
        id: VolumeId,
        request: &Request,
        (view, root): (ViewId, StorePath),
        boot_id: &str,
        published_at: i64,
    ) -> Self {
        let spec = &request.spec;
        Self {
            version: VERSION,
            id,
            target: request.target.clone(),
            access: spec.access,
            access_mode: spec.access_mode,
            attributes: spec.attributes.to_map(),
            pod: spec.pod.clone(),
            layout: spec.layout,
            size: spec.size,
            root,
            view,
            revision: None,
            boot_id: boot_id.to_owned(),
            published_at,
        }
    }

    pub fn with_revision(self, revision: Option<String>) -> Self {
        Self { revision, ..self }
    }

    pub fn shape(&self) -> Shape {
        Shape::of(self.access, self.layout, self.size)
    }

    /// The request this record came from. The source is read from the attributes again; where a
    /// newer version no longer accepts them, the resolved root stands for it.
    pub fn request(&self) -> Request {
        let source = choose_source(&self.attributes, &System::current())
            .unwrap_or_else(|_| Source::StorePath(self.root.clone()));
        let spec = VolumeSpec {
            access: self.access,
            access_mode: self.access_mode,
            attributes: self.attributes.clone().into(),
            source,
            pod: self.pod.clone(),
            layout: self.layout,
            size: self.size,
            secret: None,
            tokens: None,
        };
        Request { spec, target: self.target.clone() }
    }
}

/// A file in the directory that is not a record we can read. Kept and reported, never deleted.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub path: PathBuf,
    /// From the file's name, if that is one of ours.
    pub id: Option<VolumeId>,
    pub reason: String,
}

/// The directory of records. All functions block.
#[derive(Debug, Clone)]
pub struct RecordStore {
    dir: PathBuf,
}

impl RecordStore {
    pub fn open(dir: PathBuf) -> Result<Self, VolumeError> {
        fs::create_dir_all(&dir).map_err(|source| VolumeError::Record {
            verb: "make the directory of",
            path: dir.clone(),
            source,
        })?;
        // Attributes are the users' own text.
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&dir, private).map_err(|source| VolumeError::Record {
            verb: "restrict the directory of",
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir })
    }

    /// Whether there is one; what can't be told is taken for there.
    pub fn has(&self, id: &VolumeId) -> bool {
        self.path(id).try_exists().unwrap_or(true)
    }

    pub fn path(&self, id: &VolumeId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    pub fn write(&self, record: &Record) -> Result<(), VolumeError> {
        let path = self.path(&record.id);
        let temporary = self.dir.join(format!(".{}.tmp", record.id));
        let text = serde_json::to_vec(record).map_err(io::Error::from);
        let written = text
            .and_then(|text| fs::write(&temporary, text))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            drop(fs::remove_file(&temporary));
            VolumeError::Record { verb: "write", path, source }
        })
    }

    pub fn remove(&self, id: &VolumeId) -> Result<(), VolumeError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(VolumeError::Record { verb: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Takes an unreadable record out of the way of its volume's id, without losing it.
    pub fn set_aside(&self, id: &VolumeId) -> Result<(), VolumeError> {
        let path = self.path(id);
        match fs::rename(&path, self.dir.join(format!("{id}.unreadable"))) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(VolumeError::Record { verb: "set aside", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Every record, and every file that is none. A leftover of an interrupted write is removed: its
    /// rename never happened, so nothing followed it.
    pub fn read_all(&self) -> Result<(Vec<Record>, Vec<Unreadable>), VolumeError> {
        let failed = |source| VolumeError::Record { verb: "list", path: self.dir.clone(), source };
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') && path.extension().is_some_and(|e| e == "tmp") {
                drop(fs::remove_file(&path));
                continue;
            }
            let id = name.strip_suffix(".json").and_then(|id| VolumeId::parse(id).ok());
            match read(&path, id.as_ref()) {
                Ok(record) => records.push(record),
                Err(reason) => unreadable.push(Unreadable { path, id, reason }),
            }
        }
        Ok((records, unreadable))
    }
}

/// Targets of the records in a directory, with whose pods they are; none if there is no directory. A file that
/// can't be read as a record is an error: what it is about is not known.
pub fn recorded(dir: PathBuf) -> Result<Vec<(TargetPath, Option<String>)>, VolumeError> {
    let missing = fs::symlink_metadata(&dir).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    if missing {
        return Ok(Vec::new());
    }
    let (records, unreadable) = RecordStore { dir }.read_all()?;
    if let Some(Unreadable { path, reason, .. }) = unreadable.into_iter().next() {
        let source = io::Error::new(io::ErrorKind::InvalidData, reason);
        return Err(VolumeError::Record { verb: "read", path, source });
    }
    let pod = |pod: PodInfo| format!("pod {}/{}", pod.namespace, pod.name);
    Ok(records.into_iter().map(|record| (record.target, record.pod.map(pod))).collect())
}

fn read(path: &Path, id: Option<&VolumeId>) -> Result<Record, String> {
    let text = at_most(path, MAX).map_err(|e| e.to_string())?;
    parse(&text, id)
}

fn parse(text: &[u8], id: Option<&VolumeId>) -> Result<Record, String> {
    let record: Record = json(text)?;
    if record.version != VERSION {
        return Err(format!("version {} is not {VERSION}", record.version));
    }
    if id != Some(&record.id) {
        return Err(format!("it is of volume {}, which its name is not", record.id));
    }
    Ok(record)
}

/// Of any volume: its id is taken from the record itself.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_record(data: &[u8]) {
    let id = |text: &[u8]| serde_json::from_slice::<Record>(text).ok().map(|record| record.id);
    match parse(data, id(data).as_ref()) {
        Ok(record) => whole(&record),
        Err(reason) => crate::fuzz::refusal(&reason),
    }
}

/// It is written, read as the same, and everything in it stays in its place.
#[cfg(any(test, fuzzing))]
fn whole(record: &Record) {
    let text = serde_json::to_vec(record).expect("JSON");
    let again = parse(&text, Some(&record.id)).expect("what it wrote");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), text);
    let (before, after) = (record.request(), again.request());
    assert!(before.spec.is_same_request(&after.spec) && before.target == after.target);
    assert_eq!(before.spec.source, after.spec.source);
    assert_eq!(record.shape(), again.shape());
    for name in [record.id.as_str(), record.view.as_str(), record.root.base_name()] {
        crate::fuzz::component(name);
    }
}

/// The record of a request that was let in.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_request(id: &VolumeId, request: &Request) {
    let root = match &request.spec.source {
        Source::StorePath(path) => path.clone(),
        _ => StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x").expect("a path"),
    };
    let view = (ViewId::new(&root, 1), root);
    let record = Record::new(id.clone(), request, view, "boot", 1);
    assert!(serde_json::to_vec(&record).expect("JSON").len() <= MAX);
    assert!(record.request().spec.is_same_request(&request.spec));
    assert_eq!(record.request().spec.source, request.spec.source);
    whole(&record);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let root = StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello").unwrap();
        let attributes = BTreeMap::from([("storePath".to_owned(), root.to_string())]);
        let spec = VolumeSpec {
            access: Access::Writable,
            access_mode: 1,
            source: choose_source(&attributes, &System::current()).unwrap(),
            attributes: attributes.into(),
            pod: None,
            layout: Layout::Idmapped,
            size: VolumeSize::parse("64Mi").ok(),
            secret: None,
            tokens: None,
        };
        let target = TargetPath::parse("target_path", "/t/mount").unwrap();
        let view = ViewId::new(&root, 7);
        let id = VolumeId::parse("csi-1").unwrap();
        Record::new(id, &Request { spec, target }, (view, root), "boot", 1)
    }

    #[test]
    fn a_record_comes_back_as_the_same_request() {
        let dir = tempfile::tempdir().unwrap();
        let store = RecordStore::open(dir.path().join("volumes")).unwrap();
        let record = record();
        store.write(&record).unwrap();
        let (found, unreadable) = store.read_all().unwrap();
        assert!(unreadable.is_empty());
        assert!(found[0].request().spec.is_same_request(&record.request().spec));
        assert_eq!(found[0].view, record.view);
        assert_eq!(found[0].request().spec.layout, Layout::Idmapped);
        assert_eq!(found[0].request().spec.shape(), record.shape());
        assert_eq!(record.shape().size(), VolumeSize::parse("64Mi").ok());
        store.remove(&record.id).unwrap();
        store.remove(&record.id).unwrap();
        assert!(store.read_all().unwrap().0.is_empty());
    }

    /// Earlier versions knew one layout and no bound, and wrote down neither.
    #[test]
    fn a_record_without_layout_and_size_is_of_a_plain_unbounded_volume() {
        let mut json = serde_json::to_value(record()).unwrap();
        let fields = json.as_object_mut().unwrap();
        assert_eq!(fields.remove("layout").unwrap(), "idmapped");
        assert_eq!(fields.remove("size").unwrap(), 64 << 20);
        let old: Record = serde_json::from_value(json).unwrap();
        assert_eq!(old.request().spec.layout, Layout::Plain);
        assert_eq!(old.shape(), Shape::Writable);
    }

    /// Defect 10 of the contract: what can't be read is reported and kept.
    #[test]
    fn what_is_no_record_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = RecordStore::open(dir.path().to_owned()).unwrap();
        store.write(&record()).unwrap();
        fs::copy(dir.path().join("csi-1.json"), dir.path().join("csi-2.json")).unwrap();
        fs::write(dir.path().join("csi-3.json"), b"{\"version\":").unwrap();
        // Of whoever filled the disk.
        let large = fs::File::create(dir.path().join("csi-5.json")).unwrap();
        large.set_len(1 << 40).unwrap();
        fs::write(dir.path().join("notes"), b"x").unwrap();
        fs::write(dir.path().join(".csi-4.tmp"), b"half").unwrap();
        let (records, mut unreadable) = store.read_all().unwrap();
        unreadable.sort_by_key(|u| u.path.clone());
        assert_eq!(records.len(), 1);
        let ids: Vec<_> = unreadable.iter().map(|u| u.id.as_ref().map(VolumeId::as_str)).collect();
        assert_eq!(ids, [Some("csi-2"), Some("csi-3"), Some("csi-5"), None]);
        assert_eq!(unreadable[2].reason, "it has more than 1048576 bytes");
        assert!(dir.path().join("csi-3.json").try_exists().unwrap());
        assert!(!dir.path().join(".csi-4.tmp").try_exists().unwrap());
    }
}
