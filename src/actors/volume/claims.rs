//! Which volume has which target: two volumes of one closure at one target would look alike to the
//! kernel, and the first unpublish would take the other's mount.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::VolumeError;
use crate::model::{TargetPath, VolumeId};

/// Targets by volume; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Arc<DashMap<TargetPath, VolumeId>>);

impl Claims {
    /// Takes the target for this volume, or says whose it is.
    pub(super) fn claim(&self, target: &TargetPath, id: &VolumeId) -> Result<(), VolumeError> {
        match self.0.entry(target.clone()) {
            Entry::Vacant(free) => {
                free.insert(id.clone());
                Ok(())
            }
            Entry::Occupied(taken) if taken.get() == id => Ok(()),
            Entry::Occupied(taken) => Err(taken_by(target, taken.get())),
        }
    }

    pub(super) fn release(&self, target: &TargetPath, id: &VolumeId) {
        self.0.remove_if(target, |_, owner| owner == id);
    }
}

fn taken_by(target: &TargetPath, owner: &VolumeId) -> VolumeError {
    VolumeError::TargetTaken { target: target.clone(), by: owner.clone() }
}
