//! The part of the Admin service that is about what is kept warm.

use std::time::Duration;

use tonic::{Request, Status};

use super::proto::admin::{
    Kept as KeptMessage, PrefetchRequest, PrefetchResponse, ReleaseRequest, ReleaseResponse,
};
use super::status::status_of;
use super::traced;
use crate::actors::keeper::{KeeperHandle, Kept, PrefetchError, Prefetched, ReleaseError};
use crate::model::{Source, VolumeId};

/// Ten years: longer is for ever, and that is a setting.
const LONGEST: u64 = 3650 * 24 * 3600;

pub(super) async fn prefetch(
    keeper: &KeeperHandle,
    request: Request<PrefetchRequest>,
) -> Result<PrefetchResponse, Status> {
    let span = traced::call(&request, "nixcsi.v1.Admin", "Prefetch");
    traced::answer(span, prefetch_now(keeper, request.into_inner())).await
}

async fn prefetch_now(
    keeper: &KeeperHandle,
    request: PrefetchRequest,
) -> Result<PrefetchResponse, Status> {
    let bad = |error: &dyn ToString| Status::invalid_argument(error.to_string());
    let id = VolumeId::parse(&request.volume_id).map_err(|e| bad(&e))?;
    let source = Source::parse(&request.source_kind, &request.source).map_err(|e| bad(&e))?;
    let keep = match request.keep_seconds {
        Some(seconds @ 1..=LONGEST) => Some(Duration::from_secs(seconds)),
        Some(seconds) => {
            return Err(bad(&format!("{seconds} s to keep it: give 1 to {LONGEST}")));
        }
        None => None,
    };
    let prefetched = keeper.prefetch(source, id, keep).await.map_err(|error| match error {
        PrefetchError::Resolve(error) => status_of(&error),
        PrefetchError::Keep(error) => Status::unavailable(error.to_string()),
    })?;
    Ok(response(prefetched))
}

fn response(Prefetched { resolved, kept_until }: Prefetched) -> PrefetchResponse {
    let view = resolved.lease.view();
    PrefetchResponse {
        root: view.root.to_string(),
        paths: view.paths as u64,
        closure_bytes: view.nar_size,
        origin: resolved.origin.as_str().to_owned(),
        revision: resolved.revision.unwrap_or_default(),
        kept_until,
    }
}

pub(super) async fn release(
    keeper: &KeeperHandle,
    request: ReleaseRequest,
) -> Result<ReleaseResponse, Status> {
    let released = keeper.release(request.source).await;
    released.map(|()| ReleaseResponse {}).map_err(|error| match error {
        ReleaseError::NotKept { .. } => Status::not_found(error.to_string()),
        ReleaseError::IsSetting { .. } => Status::failed_precondition(error.to_string()),
        ReleaseError::Gone(_) => Status::unavailable(error.to_string()),
    })
}

pub(super) fn kept(kept: Kept) -> KeptMessage {
    KeptMessage {
        source_kind: kept.source.key().to_owned(),
        source: kept.source.public_text(),
        state: kept.state.to_owned(),
        root: kept.root.map(|root| root.to_string()).unwrap_or_default(),
        view_id: kept.view.map(|view| view.as_str().to_owned()).unwrap_or_default(),
        reason: kept.reason.unwrap_or_default(),
        again_in: kept.again_in.map(|left| left.as_secs_f64()),
        setting: kept.is_setting,
        until: kept.until,
    }
}
