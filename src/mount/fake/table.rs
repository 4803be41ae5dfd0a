//! The trait's functions on the table.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{FakeMounts, Op, Shown, not_found};
use crate::model::{Closure, Shape, StorePath, TargetPath, VolumeId, VolumeSize};
use crate::mount::{
    Attached, MountCount, MountError, Mounts, Presentation, Usage, View, ViewId, WriteDatabase,
};

/// Numbers scratch directories.
static SCRATCH: AtomicU64 = AtomicU64::new(0);

impl Mounts for FakeMounts {
    fn presentation(&self) -> Presentation {
        Presentation::Redirect
    }

    /// `database` is given the path of a directory that doesn't exist.
    fn create_view(
        &self,
        id: &ViewId,
        closure: &Closure,
        database: WriteDatabase<'_>,
    ) -> Result<View, MountError> {
        let mut state = self.enter(Op::CreateView)?;
        let lost = closure.paths.iter().find(|p| state.missing.contains(&p.path));
        if let Some(lost) = lost {
            let path = lost.path.clone();
            return Err(MountError::MissingPath { path });
        }
        // The database is written for real, and thrown away.
        let number = SCRATCH.fetch_add(1, Ordering::Relaxed);
        let name = format!("nix-csi-fake-{}-{number}", std::process::id());
        let scratch = std::env::temp_dir().join(name);
        let written = database(&scratch);
        let _ = std::fs::remove_dir_all(&scratch);
        written?;
        let view = View {
            id: id.clone(),
            root: closure.root.clone(),
            paths: closure.paths.len(),
            nar_size: closure.nar_size(),
            presentation: Presentation::Redirect,
        };
        let made = (view.clone(), closure.clone());
        state.views.insert(id.clone(), made);
        Ok(view)
    }

    fn reopen_view(&self, id: &ViewId) -> Result<Option<View>, MountError> {
        let state = self.enter(Op::ReopenView)?;
        Ok(state.views.get(id).map(|(view, _)| view.clone()))
    }

    fn remove_view(&self, id: &ViewId) -> Result<(), MountError> {
        let mut state = self.enter(Op::RemoveView)?;
        let shows = |s: &Shown| matches!(s, Shown::Volume(view, ..) | Shown::HalfMade(view, _) if view == id);
        if state.shown.values().any(shows) || state.files.values().any(|(view, _)| view == id) {
            return Err(MountError::ViewInUse { id: id.clone() });
        }
        state.views.remove(id);
        Ok(())
    }

    fn list_views(&self) -> Result<Vec<ViewId>, MountError> {
        Ok(self.enter(Op::ListViews)?.views.keys().cloned().collect())
    }

    fn replaced_paths(&self, id: &ViewId) -> Result<Vec<StorePath>, MountError> {
        let state = self.enter(Op::ReplacedPaths)?;
        let (_, closure) = state.view(id)?;
        let paths = closure.paths.iter().map(|p| &p.path);
        let changed = |p: &&StorePath| state.replaced.contains(*p) || state.missing.contains(*p);
        Ok(paths.filter(changed).cloned().collect())
    }

    fn attach(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<(), MountError> {
        let mut state = self.enter(Op::Attach)?;
        state.allow(target)?;
        let half_made = Shown::HalfMade(view.clone(), volume.clone());
        if let Some(shown) = state.shown.get(target)
            && !(shape == Shape::Idmapped && *shown == half_made)
        {
            return if shown.is(view, volume, shape) {
                Ok(())
            } else {
                Err(MountError::Foreign { target: target.clone() })
            };
        }
        state.view(view)?;
        if shape.is_writable() {
            state.files.insert(volume.clone(), (view.clone(), shape.size()));
        }
        let wanted = Shown::Volume(view.clone(), volume.clone(), shape);
        state.shown.insert(target.clone(), wanted);
        Ok(())
    }

    fn detach(&self, target: &TargetPath, volume: &VolumeId) -> Result<(), MountError> {
        let mut state = self.enter(Op::Detach)?;
        state.allow(target)?;
        let is_foreign = match state.shown.get(target) {
            Some(Shown::HalfMade(_, id)) => id != volume,
            found => found == Some(&Shown::Foreign),
        };
        if is_foreign {
            let target = target.clone();
            return Err(MountError::Foreign { target });
        }
        if state.shown.contains_key(target) && state.busy.contains(target) {
            let target = target.clone();
            return Err(MountError::Busy { target });
        }
        state.shown.remove(target);
        state.files.remove(volume);
        Ok(())
    }

    fn attached(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<Attached, MountError> {
        let state = self.enter(Op::Attached)?;
        state.allow(target)?;
        Ok(match state.shown.get(target) {
            None => Attached::Nothing,
            Some(shown) if shown.is(view, volume, shape) => Attached::Ours,
            Some(Shown::HalfMade(v, id))
                if shape == Shape::Idmapped && (v, id) == (view, volume) =>
            {
                Attached::Nothing
            }
            Some(_) => Attached::Foreign,
        })
    }

    fn writable_usage(&self, volume: &VolumeId) -> Result<Usage, MountError> {
        let state = self.enter(Op::WritableUsage)?;
        let (_, size) = state.files.get(volume).ok_or_else(|| not_found(volume.as_str()))?;
        let bytes_total = size.map_or(1 << 30, VolumeSize::bytes);
        Ok(Usage {
            bytes_total,
            bytes_used: 1 << 20,
            bytes_available: bytes_total - (1 << 20),
            inodes_total: 1000,
            inodes_used: 10,
            inodes_available: 990,
        })
    }

    fn count(&self) -> Result<MountCount, MountError> {
        Ok(MountCount { used: self.mounted() as u64, limit: 100_000 })
    }

    fn list_volume_files(&self) -> Result<Vec<VolumeId>, MountError> {
        let state = self.enter(Op::ListVolumeFiles)?;
        Ok(state.files.keys().cloned().collect())
    }

    /// The stand-in knows no boots.
    fn clear_unused_volume_files(&self) -> Result<(), MountError> {
        Ok(())
    }
}
