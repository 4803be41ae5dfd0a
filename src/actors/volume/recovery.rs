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
pub(super) async fn recover(hands: Hands) -> Result<Found, VolumeError> {
    let (store, mounts) = (hands.records.clone(), hands.mounts.clone());
    let read = blocking(move || {
        mounts.clear_unused_volume_files()?;
        store.read_all()
    });
    let (records, unreadable) = read.await??;
    let mut found = Found { unreadable, ..Found::default() };
    for record in records {
        let lease = ask(&hands.views, Adopt(record.view.clone())).await??;
        let (mounts, record) = (hands.mounts.clone(), Arc::new(record));
        let (here, looked) = (record.clone(), record.clone());
        let boot_id = hands.boot_id.clone();
        let alive = blocking(move || {
            // A mount of an earlier boot went with it.
            if *looked.boot_id != *boot_id {
                return Ok(false);
            }
            let at = mounts.attached(&looked.view, &looked.target, &looked.id, looked.access)?;
            Ok::<_, VolumeError>(at == Attached::Ours)
        })
        .await?;
        match (alive, lease) {
            (Ok(true), Some(lease)) => found.alive.push(((*here).clone(), lease)),
            (Ok(false), _) => clear(&hands, here).await,
            (Ok(true), None) => {
                let reason =
                    format!("its view {} is gone, but a mount shows it", here.view.as_str());
                found.unreadable.push(orphan(&here, reason));
            }
            (Err(error), _) => found.unreadable.push(orphan(&here, error.to_string())),
        }
    }
    Ok(found)
}

fn orphan(record: &Record, reason: String) -> Unreadable {
    Unreadable { path: record.target.as_path().to_owned(), id: Some(record.id.clone()), reason }
}

/// A publish or unpublish that a kill interrupted: nothing is mounted, so nothing stays.
async fn clear(hands: &Hands, record: Arc<Record>) {
    let (mounts, records) = (hands.mounts.clone(), hands.records.clone());
    let id = record.id.clone();
    let cleared = blocking(move || {
        mounts.detach(&record.target, &record.id)?;
        records.remove(&record.id)
    })
    .await
    .and_then(|done| done);
    match cleared {
        Ok(()) => tracing::info!(volume = %id, "cleared an interrupted volume"),
        Err(error) => tracing::warn!(volume = %id, %error, "can't clear an interrupted volume"),
    }
}
