//! What a start finds: the truth is the records and what is mounted.

use std::sync::Arc;

use super::VolumeError;
use super::effects::{Hands, blocking};
use super::record::{Record, Unreadable};
use crate::actors::core::ask;
use crate::actors::views::{Adopt, Lease};
use crate::mount::Attached;

/// What recovery found, for the actor to act on.
#[derive(Default)]
pub(super) struct Found {
    pub(super) alive: Vec<(Record, Arc<Lease>)>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// Reads all records and looks at each target: mounted volumes live on, everything else of
/// ours is cleared.
pub(super) async fn recover(hands: Arc<Hands>) -> Result<Found, VolumeError> {
    let (store, mounts) = (hands.records.clone(), hands.mounts.clone());
    let read = blocking(move || {
        mounts.clear_unused_volume_files()?;
        store.read_all()
    });
    let (records, unreadable) = read.await??;
    let mut found = Found { unreadable, ..Found::default() };
    for record in records {
        let lease = ask(&hands.resolver.views, Adopt(record.view.clone())).await??;
        let (mounts, record) = (hands.mounts.clone(), Arc::new(record));
        let (here, looked) = (record.clone(), record.clone());
        let boot_id = hands.boot_id.clone();
        let at = blocking(move || {
            // A mount of an earlier boot went with it.
            if *looked.boot_id != *boot_id {
                return Ok(Attached::Nothing);
            }
            mounts.attached(&looked.view, &looked.target, &looked.id, looked.shape())
        })
        .await?;
        let reason = match (at, lease) {
            (Ok(Attached::Ours), Some(lease)) => {
                found.alive.push(((*here).clone(), lease));
                continue;
            }
            (Ok(Attached::Nothing), _) => match clear(&hands, here.clone()).await {
                Ok(()) => continue,
                Err(error) => format!("it is of an interrupted volume that stays: {error}"),
            },
            (Ok(Attached::Ours), None) => {
                format!("its view {} is gone, but a mount shows it", here.view.as_str())
            }
            // Not recognised is not "not mounted": a pod may live on it.
            (Ok(Attached::Foreign), _) => {
                format!("the mount at {} is not of its view {}", here.target, here.view.as_str())
            }
            (Err(error), _) => error.to_string(),
        };
        let path = hands.records.path(&here.id);
        found.unreadable.push(Unreadable { path, id: Some(here.id.clone()), reason });
    }
    Ok(found)
}

/// A publish or unpublish that a kill interrupted: nothing is mounted, so nothing stays.
async fn clear(hands: &Hands, record: Arc<Record>) -> Result<(), VolumeError> {
    let (mounts, records) = (hands.mounts.clone(), hands.records.clone());
    let id = record.id.clone();
    let cleared = blocking(move || {
        mounts.detach(&record.target, &record.id)?;
        records.remove(&record.id)
    });
    cleared.await.and_then(|done| done)?;
    tracing::info!(volume = %id, "cleared an interrupted volume");
    Ok(())
}
