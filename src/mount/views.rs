//! A view's life. `<views>/<id>/` holds `layer/`, `mnt/` and, written last, `view.json`: a
//! directory without it is half-made and nobody shows it. Removal takes `view.json` away first.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::PoisonError;

use rustix::io::Errno;

use super::failure::failed;
use super::layer::{self, Filled, LAYER, MNT, StoreDir};
use super::metadata::names;
use super::metadata::{self, Entry, ViewRecord, VolumeRecord};
use super::real::RealMounts;
use super::{
    MountError, Presentation, View, ViewId, WriteDatabase, hardlink, mountinfo, redirect, sys,
};
use crate::crash::crash_point;
use crate::model::{Closure, StorePath, VolumeId};

/// More mounts than this on one directory are not ours to unravel.
pub(super) const MAX_STACKED: usize = 16;

impl RealMounts {
    pub(super) fn create(
        &self,
        id: &ViewId,
        closure: &Closure,
        database: WriteDatabase<'_>,
    ) -> Result<View, MountError> {
        let dir = self.view_dir(id);
        if let Some(record) = metadata::read::<ViewRecord>(&dir, &self.boot_id)?
            && is_of(&record, closure)
            && let Some(view) = self.reopen(id)?
        {
            return Ok(view);
        }
        self.remove(id)?;
        self.make(id, &dir, closure, database).inspect_err(|_| {
            if let Err(e) = self.remove(id) {
                tracing::warn!(view = id.as_str(), error = %e, "half-made view stays for now");
            }
        })
    }

    fn make(
        &self,
        id: &ViewId,
        dir: &Path,
        closure: &Closure,
        database: WriteDatabase<'_>,
    ) -> Result<View, MountError> {
        let store = StoreDir::open(&self.store_dir)?;
        let presentation = super::Mounts::presentation(self);
        layer::make_dir(dir)?;
        layer::make_dir(&dir.join(MNT))?;
        crash_point("view-dir-made");
        let filled = layer::make(&dir.join(LAYER), presentation, &store, closure, database)?;
        let record = self.record(presentation, closure, filled);
        self.mount_view(id, &record)?;
        crash_point("view-mounted");
        metadata::write(dir, &record)?;
        crash_point("view-complete");
        Ok(view(id, &record))
    }

    fn record(&self, presentation: Presentation, closure: &Closure, filled: Filled) -> ViewRecord {
        ViewRecord {
            version: metadata::version(),
            boot_id: self.boot_id.clone(),
            root: closure.root.clone(),
            presentation,
            metacopy: filled.metacopy,
            nar_size: closure.nar_size(),
            created: jiff::Timestamp::now().as_second(),
            paths: filled.entries,
        }
    }

    pub(super) fn mount_view(&self, id: &ViewId, record: &ViewRecord) -> Result<(), MountError> {
        let (layer, mnt) = (self.layer(id), self.mnt(id));
        let tree = match record.presentation {
            Presentation::Redirect => redirect::mount(id, &layer, &self.store_dir, record.metacopy),
            Presentation::Hardlink => hardlink::mount(&layer),
        }?;
        sys::show(&tree, sys::open_dir(&mnt)?.as_fd(), &mnt)?;
        crash_point("view-shown");
        // A mount on a shared one becomes shared, and the volumes would be its peers.
        sys::make_private(tree.as_fd(), &mnt)
    }

    pub(super) fn reopen(&self, id: &ViewId) -> Result<Option<View>, MountError> {
        let dir = self.view_dir(id);
        let Some(record) = metadata::read::<ViewRecord>(&dir, &self.boot_id)? else {
            return Ok(None);
        };
        let mnt = self.mnt(id);
        if sys::is_mount_root(&mnt)? {
            sys::make_private(sys::open_dir(&mnt)?.as_fd(), &mnt)?;
        } else {
            self.mount_view(id, &record)?;
        }
        Ok(Some(view(id, &record)))
    }

    pub(super) fn replaced(&self, id: &ViewId) -> Result<Vec<StorePath>, MountError> {
        let dir = self.view_dir(id);
        let record = metadata::read::<ViewRecord>(&dir, &self.boot_id)?.ok_or_else(|| {
            failed("read", &dir.join(ViewRecord::FILE))(std::io::Error::from(Errno::NOENT))
        })?;
        let store = StoreDir::open(&self.store_dir)?;
        let mut replaced = Vec::new();
        for Entry(name, dev, ino) in &record.paths {
            let path = StorePath::from_base_name(name).map_err(|e| MountError::Metadata {
                path: dir.join(ViewRecord::FILE),
                reason: e.to_string(),
            })?;
            match store.look_up(&path) {
                Ok(found) if (found.st_dev, found.st_ino) == (*dev, *ino) => {}
                Ok(_) | Err(MountError::MissingPath { .. }) => replaced.push(path),
                Err(e) => return Err(e),
            }
        }
        Ok(replaced)
    }

    pub(super) fn remove(&self, id: &ViewId) -> Result<(), MountError> {
        let dir = self.view_dir(id);
        if is_absent(&dir) {
            return Ok(());
        }
        let attaching = self.view_lock(id).write();
        let attaching = attaching.unwrap_or_else(PoisonError::into_inner);
        if self.is_in_use(id)? {
            return Err(MountError::ViewInUse { id: id.clone() });
        }
        unmount_all(&dir.join(MNT), id)?;
        crash_point("remove-view-unmounted");
        gone(fs::remove_file(dir.join(ViewRecord::FILE)))
            .map_err(failed("remove", &dir.join(ViewRecord::FILE)))?;
        crash_point("remove-view-metadata-removed");
        // Fails on a mount point: what is below a mount must never be taken for the view's files.
        gone(fs::remove_dir(dir.join(MNT))).map_err(failed("remove", &dir.join(MNT)))?;
        // Without its mount point nobody can attach it: the files may take their time.
        drop(attaching);
        crash_point("remove-view-mnt-removed");
        gone(fs::remove_dir_all(&dir)).map_err(failed("remove", &dir))
    }

    /// Whether something other than `mnt` itself shows the view, under this mount or an earlier
    /// one.
    fn is_in_use(&self, id: &ViewId) -> Result<bool, MountError> {
        let tag = redirect::source(id);
        let layer = Path::new(id.as_str()).join(LAYER);
        let own = Path::new(id.as_str()).join(MNT);
        let shown = mountinfo::read()?.into_iter().any(|mount| {
            let overlay = mount.source == tag.as_bytes();
            // A copy of the view's own mount, by propagation, is at the same place seen otherwise.
            let is_own = mount.point.ends_with(&own)
                && (mount.root == Path::new("/") || mount.root.ends_with(&layer));
            let bind = mount.root.ancestors().any(|dir| dir.ends_with(&layer));
            (overlay || bind) && !is_own
        });
        Ok(shown || self.is_below_a_volume(id)?)
    }

    /// A writable volume's overlay holds the view without a mount that could be seen.
    fn is_below_a_volume(&self, id: &ViewId) -> Result<bool, MountError> {
        for volume in names(&self.volumes_dir, |name| VolumeId::parse(name).ok())? {
            let record = metadata::read::<VolumeRecord>(&self.volume_dir(&volume), &self.boot_id)?;
            if record.is_some_and(|record| record.view == *id) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn view(id: &ViewId, record: &ViewRecord) -> View {
    View {
        id: id.clone(),
        root: record.root.clone(),
        paths: record.paths.len(),
        nar_size: record.nar_size,
        presentation: record.presentation,
    }
}

fn is_of(record: &ViewRecord, closure: &Closure) -> bool {
    record.root == closure.root
        && record.paths.len() == closure.paths.len()
        && (record.paths.iter().zip(&closure.paths)).all(|(a, b)| a.0 == b.path.base_name())
}

fn unmount_all(mnt: &Path, id: &ViewId) -> Result<(), MountError> {
    for _ in 0..MAX_STACKED {
        if !sys::is_mount_root(mnt)? {
            return Ok(());
        }
        match sys::unmount(mnt) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(MountError::ViewInUse { id: id.clone() }),
            Err(e) => return Err(failed("unmount", mnt)(e)),
        }
    }
    Err(MountError::ViewInUse { id: id.clone() })
}

/// For certain: what can't be looked at may be there.
pub(super) fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

/// Absent is as good as removed.
pub(super) fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
