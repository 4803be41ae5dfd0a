//! Tries at the start, with the code and the directories that the driver will use, whether a
//! presentation works: whether an overlay may lie over this store, be told to follow redirects,
//! and carry a writable overlay on top depends on the kernel and on every file system involved.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatVfsMountFlags, statvfs};
use rustix::io::Errno;

use super::bounded;
use super::failure::failed;
use super::files::Layers;
use super::fsopen::{self, Overlay};
use super::layer::{self, LAYER, MNT, SHOWN, StoreDir};
use super::real::RealMounts;
use super::sys;
use super::views::gone;
use super::{MountError, Presentation, ViewId, hardlink, redirect};
use crate::model::{Closure, PathInfo, StorePath, VolumeSize};

const SCRATCH: &str = ".probe";
const SCRATCH_BOUNDED: &str = ".probe-bounded";
/// Of the pretend path in a store that has no directory to try with.
const PRETEND: &str = "00000000000000000000000000000000-probe";
/// A store has many files before the first directory only if it is odd.
const MAX_LOOKED_AT: usize = 1000;

/// What works.
pub(super) struct Outcome {
    pub(super) presentation: Presentation,
    /// Why writable volumes don't.
    pub(super) writable_refusal: Option<String>,
    /// Why those with a size don't.
    pub(super) bounded_refusal: Option<String>,
    /// Works, but not as it should.
    pub(super) warning: Option<String>,
}

/// Whether programs in this directory can't be started from there (mount(2), `MS_NOEXEC`). In an overlay of it they
/// can, which has flags of its own.
pub fn is_noexec(dir: &Path) -> Result<bool, MountError> {
    let found = statvfs(dir).map_err(failed("look at the file system of", dir))?;
    Ok(found.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Makes and mounts a view of one path in a scratch directory, and undoes it.
pub(super) fn run(mounts: &RealMounts, presentation: Presentation) -> Result<Outcome, MountError> {
    let scratch = Scratch {
        view: mounts.views_dir.join(SCRATCH),
        volume: mounts.volumes_dir.join(SCRATCH),
        bounded: mounts.volumes_dir.join(SCRATCH_BOUNDED),
    };
    scratch.clear()?; // of a process that died here
    let tried = attempt(mounts, presentation, &scratch);
    let cleared = scratch.clear();
    let outcome = tried?;
    cleared?;
    Ok(outcome)
}

fn attempt(
    mounts: &RealMounts,
    presentation: Presentation,
    scratch: &Scratch,
) -> Result<Outcome, MountError> {
    layer::make_dir(&scratch.view)?;
    let mnt = scratch.view.join(MNT);
    layer::make_dir(&mnt)?;
    let (store, example) = example(mounts, scratch)?;
    let linked = presentation == Presentation::Hardlink;
    let layer_dir = scratch.view.join(LAYER);
    let tree = detached(mounts, presentation, &layer_dir, &store, &example)?;
    sys::show(&tree, sys::open_dir(&mnt)?.as_fd(), &mnt)?;
    sys::make_private(tree.as_fd(), &mnt)?;
    drop(tree); // it would keep the mount busy
    let shown = mnt.join(SHOWN);
    if !linked && !redirect::shows_same(&store, &shown.join("store"), &example)? {
        return Err(MountError::Io {
            verb: "see the store through the overlay",
            path: shown,
            source: Errno::OPNOTSUPP.into(),
            detail: Some("the kernel does not follow trusted.overlay.redirect here".to_owned()),
        });
    }
    let warning = (linked && !same_mount(mounts, &layer_dir)).then(|| {
        "views and store are on different file systems or mounts: files are copied, not linked"
            .to_owned()
    });
    let writable = |dir: &Path, size| refusal(writable((dir, &shown), size, &mounts.search_path));
    let writable_refusal = writable(&scratch.volume, None);
    let bounded_refusal = match writable_refusal {
        None => writable(&scratch.bounded, Some(VolumeSize::MIN)),
        Some(_) => None, // which is said already
    };
    Ok(Outcome { presentation, writable_refusal, bounded_refusal, warning })
}

/// The view's mount, not shown yet.
fn detached(
    mounts: &RealMounts,
    presentation: Presentation,
    layer_dir: &Path,
    store: &StoreDir,
    example: &StorePath,
) -> Result<OwnedFd, MountError> {
    let info = PathInfo { path: example.clone(), nar_size: 0 };
    let closure = Closure {
        root: example.clone(),
        // A hard-link tree of a real path could be large; its layer is tried empty.
        paths: match presentation {
            Presentation::Redirect => vec![info],
            Presentation::Hardlink => Vec::new(),
        },
    };
    let filled = layer::make(layer_dir, presentation, store, &closure, &|_| Ok(()))?;
    match presentation {
        Presentation::Redirect => {
            let id = ViewId::new(example, 0);
            // Metacopy is tried too: single files of another file system will need it.
            let metacopy = filled.metacopy || !same_mount(mounts, layer_dir);
            if store.path() != mounts.store_dir {
                redirect::mount(&id, layer_dir, &mounts.store_dir, metacopy)?;
            }
            redirect::mount(&id, layer_dir, store.path(), metacopy)
        }
        Presentation::Hardlink => hardlink::mount(layer_dir),
    }
}

/// A directory of the store with something in it; an empty store gets a pretend one beside it.
fn example(mounts: &RealMounts, scratch: &Scratch) -> Result<(StoreDir, StorePath), MountError> {
    let store = StoreDir::open(&mounts.store_dir)?;
    let entries = fs::read_dir(store.path()).map_err(failed("list", store.path()))?;
    for entry in entries.take(MAX_LOOKED_AT).filter_map(Result::ok) {
        let path = entry.file_name().to_str().and_then(|name| StorePath::from_base_name(name).ok());
        let filled = || fs::read_dir(entry.path()).is_ok_and(|mut inner| inner.next().is_some());
        if let Some(path) = path
            && entry.file_type().is_ok_and(|t| t.is_dir())
            && filled()
        {
            return Ok((store, path));
        }
    }
    let pretend = scratch.view.join("store");
    let made = pretend.join(PRETEND).join("file");
    fs::create_dir_all(&made).map_err(failed("make the directory", &made))?;
    let path = StorePath::from_base_name(PRETEND)
        .map_err(|e| MountError::Metadata { path: pretend.clone(), reason: e.to_string() })?;
    Ok((StoreDir::open(&pretend)?, path))
}

/// Whether the store's files can be linked into a view: links don't cross file systems, nor
/// mounts of one file system.
fn same_mount(mounts: &RealMounts, layer_dir: &Path) -> bool {
    let name = layer_dir.join("link");
    // Linking a directory is refused for that only after it is refused with EXDEV.
    let cwd = rustix::fs::CWD;
    let linked = rustix::fs::linkat(cwd, &mounts.store_dir, cwd, &name, AtFlags::empty());
    linked != Err(Errno::XDEV)
}

fn refusal(tried: Result<(), MountError>) -> Option<String> {
    tried.err().map(|e| match e {
        MountError::Unbounded { reason } => reason,
        other => other.to_string(),
    })
}

fn writable(
    (dir, shown): (&Path, &Path),
    size: Option<VolumeSize>,
    search_path: &OsStr,
) -> Result<(), MountError> {
    let Layers { upper, work } = Layers::make(dir, size, search_path)?;
    fsopen::overlay(&Overlay {
        source: "nix-csi-probe",
        layers: &[shown],
        upper: Some((&upper, &work)),
        options: &[("volatile", None)],
    })
    .map(drop)
}

struct Scratch {
    view: PathBuf,
    volume: PathBuf,
    bounded: PathBuf,
}

impl Scratch {
    fn clear(&self) -> Result<(), MountError> {
        let mnt = self.view.join(MNT);
        while sys::is_mount_root(&mnt)? {
            sys::unmount(&mnt).map_err(failed("unmount", &mnt))?;
        }
        bounded::hide(&self.bounded)?;
        for dir in [&mnt, &self.volume, &self.bounded, &self.view] {
            gone(fs::remove_dir_all(dir)).map_err(failed("remove", dir))?;
        }
        Ok(())
    }
}
