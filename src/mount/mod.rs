//! Everything that mounts: views of closures, volumes at target paths, and the paths themselves.
//! All functions block; call them on a blocking thread.
//!
//! [`Mounts`] is what the actors see; `real` uses the kernel's mount API, `fake` keeps a
//! table in memory with faults on demand. One test suite runs over both.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{Closure, Shape, StorePath, TargetPath, VolumeId};
use crate::nix::NixError;

mod bounded;
mod copy;
mod count;
mod detach;
mod failure;
pub mod fake;
mod files;
mod fsopen;
mod hardlink;
mod identity;
mod idmapped;
mod layer;
mod loopdev;
mod metadata;
mod mkfs;
mod mountinfo;
mod paths;
mod probe;
mod real;
mod redirect;
mod sys;
mod views;
mod volumes;

#[cfg(any(test, fuzzing))]
pub(crate) use metadata::fuzz_records;

pub use count::MountCount;
pub use mountinfo::points;
pub use probe::is_noexec;
pub use real::{Config, PresentationChoice, RealMounts};

/// Where a debug build can be told to die; see [`crate::crash`].
pub const CRASH_POINTS: &[&str] = &[
    "view-dir-made",
    "view-skeleton-made",
    "view-layer-made",
    "view-database-written",
    "view-shown",
    "view-mounted",
    "record-temporary-written",
    "view-complete",
    "attach-dir-made",
    "attach-image-made",
    "attach-image-shown",
    "attach-files-made",
    "attach-record-written",
    "attach-top-shown",
    "attach-part-shown",
    "attach-mounted",
    "detach-part-unmounted",
    "detach-unmounted",
    "detach-dir-removed",
    "detach-files-removed",
    "remove-view-unmounted",
    "remove-view-metadata-removed",
    "remove-view-mnt-removed",
];

/// Whether something is mounted at a path; nothing is where nothing is.
pub fn is_mounted(path: &Path) -> Result<bool, MountError> {
    sys::is_mount_root(path)
}

/// How a view shows the store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presentation {
    /// An overlay of redirects: one directory and one xattr per store path.
    Redirect,
    /// A tree of hard links: one link per file.
    Hardlink,
}

/// A view's name, also its directory's: `<hash part of the root>.<n>`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String")]
pub struct ViewId(String);

#[derive(Debug, thiserror::Error)]
#[error("{name:?} is no view's name")]
pub struct InvalidViewId {
    name: String,
}

/// In a record: a name that is another's directory, or leads out of ours, is none.
impl TryFrom<String> for ViewId {
    type Error = InvalidViewId;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        let short = || name.chars().take(80).collect();
        Self::parse(&name).ok_or_else(|| InvalidViewId { name: short() })
    }
}

impl ViewId {
    pub fn new(root: &StorePath, n: u64) -> Self {
        Self(format!("{}.{n}", root.hash()))
    }

    /// Parses a directory's name; `None` if it is not a view's.
    pub fn parse(name: &str) -> Option<Self> {
        let (hash, n) = name.split_once('.')?;
        let is_hash = |path: &StorePath| path.hash() == hash;
        StorePath::from_base_name(&format!("{hash}-x")).ok().filter(is_hash)?;
        (n.parse::<u64>().ok()?.to_string() == n).then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells views of one root apart; the newer one's is greater.
    pub fn number(&self) -> u64 {
        self.0.rsplit_once('.').and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
    }
}

/// A view that is mounted and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub id: ViewId,
    pub root: StorePath,
    /// Number of store paths.
    pub paths: usize,
    /// Bytes of their NAR serialisations.
    pub nar_size: u64,
    pub presentation: Presentation,
}

/// What is at a target path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Nothing is mounted there (the directory may or may not exist), or a half-made mount of this
    /// volume, which `attach` completes and `detach` removes.
    Nothing,
    /// A mount that shows this view, or this volume's own overlay.
    Ours,
    /// A mount of somebody else's, or of another volume.
    Foreign,
}

/// Bytes and inodes for NodeGetVolumeStats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub bytes_total: u64,
    pub bytes_used: u64,
    pub bytes_available: u64,
    pub inodes_total: u64,
    pub inodes_used: u64,
    pub inodes_available: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Outside every allowed directory.
    #[error(
        "target_path {target} is outside the allowed directories ({allowed}): start nix-csi with --target-root for it"
    )]
    NotAllowed { target: TargetPath, allowed: String },
    /// A component of the target's parents is a symlink or magic link.
    #[error("target_path {target}: {} is a symlink or leaves the allowed directory; symlinks are followed only in a --target-root itself", .at.display())]
    Symlink { target: TargetPath, at: PathBuf },
    #[error("target_path {target}: its parent directory does not exist; the caller creates it")]
    NoParent { target: TargetPath },
    #[error("target_path {target}: {} is not a directory", .at.display())]
    NotADirectory { target: TargetPath, at: PathBuf },
    #[error("target_path {target} already is a mount point, and not of this volume")]
    Foreign { target: TargetPath },
    /// Something still uses the mount; nothing was changed.
    #[error("target_path {target} is busy: a process still uses the mount")]
    Busy { target: TargetPath },
    /// A path of the closure is gone from the store.
    #[error("{path} of the closure is missing from the store's directory: repair the store")]
    MissingPath { path: StorePath },
    #[error("no space left on the file system of {}", .path.display())]
    NoSpace { path: PathBuf },
    /// A writable volume's size can't be kept here.
    #[error(
        "volumeAttributes.size can't be kept on this node: {reason}: have the node's operator see to that, or leave size out"
    )]
    Unbounded { reason: String },
    #[error("the view {} is still shown by a mount", .id.as_str())]
    ViewInUse { id: ViewId },
    /// `detail` is the kernel's own text where it gives one.
    #[error("can't {verb} {}: {source}{}", .path.display(), .detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Io { verb: &'static str, path: PathBuf, source: io::Error, detail: Option<String> },
    #[error("view metadata {} is unreadable: {reason}", .path.display())]
    Metadata { path: PathBuf, reason: String },
    #[error(transparent)]
    Database(#[from] NixError),
}

impl MountError {
    /// The target itself can't be used. Nothing was mounted there, and undoing would be refused
    /// for the same reason.
    pub fn refuses_target(&self) -> bool {
        match self {
            Self::NotAllowed { .. }
            | Self::Symlink { .. }
            | Self::NoParent { .. }
            | Self::NotADirectory { .. }
            | Self::Foreign { .. } => true,
            Self::Busy { .. }
            | Self::MissingPath { .. }
            | Self::NoSpace { .. }
            | Self::Unbounded { .. }
            | Self::ViewInUse { .. }
            | Self::Io { .. }
            | Self::Metadata { .. }
            | Self::Database(_) => false,
        }
    }
}

/// Writes the closure's Nix database into the directory it is given, as a rule on another thread.
pub type WriteDatabase<'a> = &'a (dyn Fn(&Path) -> Result<(), NixError> + Sync);

/// Views and volumes. Every function is idempotent and leaves, if the process dies in it, a state
/// that calling it again (or its counterpart) repairs.
pub trait Mounts: Send + Sync + 'static {
    fn presentation(&self) -> Presentation;

    /// Makes and mounts a new view of `closure`. Every path is checked to be there first. The
    /// caller holds a GC root for `closure.root`. A half-made view of the same id is replaced; a
    /// complete one of the same closure and boot is the result.
    fn create_view(
        &self,
        id: &ViewId,
        closure: &Closure,
        database: WriteDatabase<'_>,
    ) -> Result<View, MountError>;

    /// Finds a view that an earlier process of this boot completed, mounting it again if its mount
    /// is gone. `Ok(None)`: there is none, or it is half-made or of an earlier boot.
    fn reopen_view(&self, id: &ViewId) -> Result<Option<View>, MountError>;

    /// Unmounts the view and removes its files. Refuses with `ViewInUse` while another mount of
    /// this mount namespace shows it.
    fn remove_view(&self, id: &ViewId) -> Result<(), MountError>;

    /// All view directories, complete or not.
    fn list_views(&self) -> Result<Vec<ViewId>, MountError>;

    /// Store paths of a mounted view whose directory entry was replaced since the view was made.
    fn replaced_paths(&self, id: &ViewId) -> Result<Vec<StorePath>, MountError>;

    /// Shows `view` at `target`, creating the target directory. `Ours` already there is success. A
    /// writable volume that is mounted at another target is `Busy` there; one whose size the node
    /// can't keep is `Unbounded`.
    fn attach(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<(), MountError>;

    /// Unmounts the volume's mount at `target`, removes the target directory if it is empty, and
    /// the volume's own files. Nothing there, or no parent, is success. `Busy` changes nothing. A mount
    /// that is not ours is `Foreign` and stays.
    fn detach(&self, target: &TargetPath, volume: &VolumeId) -> Result<(), MountError>;

    /// What is at `target`. `view` and `volume` tell ours from foreign; O(1).
    fn attached(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<Attached, MountError>;

    /// Statistics of the file system that takes a mounted writable volume's writes; a bounded one has
    /// its own. O(1).
    fn writable_usage(&self, volume: &VolumeId) -> Result<Usage, MountError>;

    /// All mounts of this mount namespace, ours and others'.
    fn count(&self) -> Result<MountCount, MountError>;

    /// Volume ids that have files of their own (writable layers) on disk.
    fn list_volume_files(&self) -> Result<Vec<VolumeId>, MountError>;

    /// For the start, before anything is attached: removes writable layers that no mount of this
    /// boot can use. Their mounts went with the earlier boot, or were never made.
    fn clear_unused_volume_files(&self) -> Result<(), MountError>;
}
