//! [`Mounts`] by the kernel's mount API. Views are in `views`, volumes in `volumes`; here are what
//! they share and the checks at the start.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, RwLock};

use dashmap::DashMap;

use super::failure::failed;
use super::layer::{LAYER, MNT};
use super::metadata::names;
use super::paths::Roots;
use super::{
    Attached, MountCount, MountError, Mounts, Presentation, Usage, View, ViewId, WriteDatabase,
    metadata, probe,
};
use crate::lock::lock;
use crate::model::{Closure, Shape, StorePath, TargetPath, VolumeId};

/// An `fsconfig` string has 255 bytes; a joined `lowerdir` holds a view's layer and the store.
const MAX_DIR_LEN: usize = 96;
const STRIPES: usize = 32;

/// Which presentation to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PresentationChoice {
    /// Redirects where they work here, else hard links.
    #[default]
    Auto,
    /// Redirects, or no start.
    Redirect,
    Hardlink,
}

impl FromStr for PresentationChoice {
    type Err = String;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        match value {
            "auto" => Ok(Self::Auto),
            "redirect" => Ok(Self::Redirect),
            "hardlink" => Ok(Self::Hardlink),
            other => Err(format!("{other:?} is none of auto, redirect and hardlink")),
        }
    }
}

/// Where things are. Directories of ours are made if they are absent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's paths, as this process sees them.
    pub store_dir: PathBuf,
    pub views_dir: PathBuf,
    pub volumes_dir: PathBuf,
    /// Targets lie below one of these; `/` allows all.
    pub target_roots: Vec<PathBuf>,
    pub presentation: PresentationChoice,
    /// Where `mkfs.ext4` is looked for first.
    pub search_path: OsString,
}

/// [`Mounts`] of this machine.
#[derive(Debug)]
pub struct RealMounts {
    pub(super) store_dir: PathBuf,
    pub(super) views_dir: PathBuf,
    pub(super) volumes_dir: PathBuf,
    pub(super) roots: Roots,
    pub(super) boot_id: String,
    pub(super) search_path: OsString,
    presentation: Presentation,
    fallback: Option<String>,
    writable_refusal: Option<String>,
    bounded_refusal: Option<String>,
    targets: [Mutex<()>; STRIPES],
    /// What a mount with that device number showed when one was detached last: where to look first.
    pub(super) detached: DashMap<u64, ViewId>,
    /// Attaching reads a view, removing it writes: a view is never removed from under an attach.
    pub(super) views: [RwLock<()>; STRIPES],
}

impl RealMounts {
    /// Checks the directories and tries, in a scratch directory, what this kernel and these file
    /// systems can do. Needs CAP_SYS_ADMIN.
    pub fn open(config: &Config) -> Result<Self, MountError> {
        let store_dir = existing(&config.store_dir)?;
        let (views_dir, volumes_dir) = (made(&config.views_dir)?, made(&config.volumes_dir)?);
        // Pods write there as root: a setuid file in a layer must be out of reach, since only the
        // volume's own mount is nosuid.
        fs::set_permissions(&volumes_dir, fs::Permissions::from_mode(0o700))
            .map_err(failed("restrict", &volumes_dir))?;
        let dirs = [&store_dir, &views_dir, &volumes_dir];
        for dir in dirs {
            check_name(dir)?;
            if let Some(outer) = dirs.iter().find(|o| **o != dir && dir.starts_with(o)) {
                // An overlay whose upper directory is below its lower one is undefined.
                return Err(unusable(dir, format!("it must not be below {}", outer.display())));
            }
        }
        let mut mounts = Self {
            store_dir,
            views_dir,
            volumes_dir,
            roots: Roots::new(&config.target_roots)?,
            boot_id: metadata::read_boot_id()?,
            search_path: config.search_path.clone(),
            presentation: Presentation::Redirect,
            fallback: None,
            writable_refusal: None,
            bounded_refusal: None,
            targets: [const { Mutex::new(()) }; STRIPES],
            detached: DashMap::new(),
            views: [const { RwLock::new(()) }; STRIPES],
        };
        mounts.choose(config.presentation)?;
        Ok(mounts)
    }

    fn choose(&mut self, choice: PresentationChoice) -> Result<(), MountError> {
        let outcome = |mounts: &Self, presentation| probe::run(mounts, presentation);
        let found = match choice {
            PresentationChoice::Redirect => outcome(self, Presentation::Redirect)?,
            PresentationChoice::Hardlink => outcome(self, Presentation::Hardlink)?,
            PresentationChoice::Auto => match outcome(self, Presentation::Redirect) {
                Ok(found) => found,
                Err(reason) => {
                    self.fallback = Some(format!("redirect views don't work here: {reason}"));
                    outcome(self, Presentation::Hardlink)?
                }
            },
        };
        self.presentation = found.presentation;
        self.writable_refusal = found.writable_refusal;
        self.bounded_refusal = found.bounded_refusal;
        if let Some(warning) = found.warning {
            let before = self.fallback.take().map(|f| f + "; ").unwrap_or_default();
            self.fallback = Some(before + &warning);
        }
        Ok(())
    }

    /// Why this is less than asked for: hard links instead of redirects, copies instead of links.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Why writable volumes don't work here, if they don't.
    pub fn writable_refusal(&self) -> Option<&str> {
        self.writable_refusal.as_deref()
    }

    /// Why those with a size don't, where others do. At the start; a publish tries it again.
    pub fn bounded_refusal(&self) -> Option<&str> {
        self.bounded_refusal.as_deref()
    }

    pub(super) fn view_dir(&self, id: &ViewId) -> PathBuf {
        self.views_dir.join(id.as_str())
    }

    pub(super) fn layer(&self, id: &ViewId) -> PathBuf {
        self.view_dir(id).join(LAYER)
    }

    pub(super) fn mnt(&self, id: &ViewId) -> PathBuf {
        self.view_dir(id).join(MNT)
    }

    pub(super) fn volume_dir(&self, id: &VolumeId) -> PathBuf {
        self.volumes_dir.join(id.as_str())
    }

    /// Two calls for one target don't interleave, so that mounts don't stack.
    pub(super) fn lock_target(&self, target: &TargetPath) -> MutexGuard<'_, ()> {
        lock(&self.targets[stripe(target)])
    }

    pub(super) fn view_lock(&self, id: &ViewId) -> &RwLock<()> {
        &self.views[stripe(id)]
    }
}

fn stripe(key: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0)
}

fn existing(dir: &Path) -> Result<PathBuf, MountError> {
    dir.canonicalize().map_err(failed("open", dir))
}

fn made(dir: &Path) -> Result<PathBuf, MountError> {
    fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
    existing(dir)
}

/// Overlay options can't carry every path.
fn check_name(dir: &Path) -> Result<(), MountError> {
    let bytes = dir.as_os_str().as_encoded_bytes();
    if let Some(bad) = bytes.iter().find(|b| b":,\\\"".contains(b)) {
        let bad = char::from(*bad);
        return Err(unusable(dir, format!("{bad:?} in its name can't be given to an overlay")));
    }
    if bytes.len() > MAX_DIR_LEN {
        let bytes = bytes.len();
        let why = format!(
            "its name has {bytes} bytes, more than the {MAX_DIR_LEN} that fit an overlay's options"
        );
        return Err(unusable(dir, why));
    }
    Ok(())
}

fn unusable(dir: &Path, reason: String) -> MountError {
    MountError::Io {
        verb: "use",
        path: dir.to_owned(),
        source: rustix::io::Errno::INVAL.into(),
        detail: Some(reason),
    }
}

impl Mounts for RealMounts {
    fn presentation(&self) -> Presentation {
        self.presentation
    }

    fn create_view(
        &self,
        id: &ViewId,
        closure: &Closure,
        database: WriteDatabase<'_>,
    ) -> Result<View, MountError> {
        self.create(id, closure, database)
    }

    fn reopen_view(&self, id: &ViewId) -> Result<Option<View>, MountError> {
        self.reopen(id)
    }

    fn remove_view(&self, id: &ViewId) -> Result<(), MountError> {
        self.remove(id)
    }

    fn list_views(&self) -> Result<Vec<ViewId>, MountError> {
        names(&self.views_dir, ViewId::parse)
    }

    fn replaced_paths(&self, id: &ViewId) -> Result<Vec<StorePath>, MountError> {
        self.replaced(id)
    }

    fn attach(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<(), MountError> {
        self.attach_volume(view, target, volume, shape)
    }

    fn detach(&self, target: &TargetPath, volume: &VolumeId) -> Result<(), MountError> {
        self.detach_volume(target, volume)
    }

    fn attached(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<Attached, MountError> {
        self.look_at(view, target, volume, shape)
    }

    fn writable_usage(&self, volume: &VolumeId) -> Result<Usage, MountError> {
        self.usage(volume)
    }

    fn count(&self) -> Result<MountCount, MountError> {
        MountCount::now()
    }

    fn list_volume_files(&self) -> Result<Vec<VolumeId>, MountError> {
        names(&self.volumes_dir, |name| VolumeId::parse(name).ok())
    }

    fn clear_unused_volume_files(&self) -> Result<(), MountError> {
        self.clear_unused_files()
    }
}
