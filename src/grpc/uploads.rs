//! The part of the Admin service that is about uploads.

use tonic::Status;

use super::proto::admin::{
    ListUploadsResponse, RetryUploadsRequest, RetryUploadsResponse, UnreadableRecord, Upload,
};
use crate::actors::core::ActorGone;
use crate::actors::uploads::{UploadSummary, UploadsHandle};
use crate::model::StorePath;

pub(super) async fn list(uploads: Option<&UploadsHandle>) -> Result<ListUploadsResponse, Status> {
    let report = there(uploads)?.list().await.map_err(|e| gone(&e))?;
    let unreadable = report
        .unreadable
        .into_iter()
        .map(|u| UnreadableRecord { path: u.path.display().to_string(), reason: u.reason });
    Ok(ListUploadsResponse {
        destination: report.destination,
        waiting: report.waiting as u64,
        sending: report.sending as u64,
        dead: report.dead as u64,
        uploads: report.uploads.into_iter().map(upload).collect(),
        unreadable: unreadable.collect(),
    })
}

pub(super) async fn retry(
    uploads: Option<&UploadsHandle>,
    request: RetryUploadsRequest,
) -> Result<RetryUploadsResponse, Status> {
    let uploads = there(uploads)?;
    let paths: Result<_, _> = request.paths.iter().map(|path| StorePath::parse(path)).collect();
    let paths = paths.map_err(|e| Status::invalid_argument(e.to_string()))?;
    let retried = uploads.retry(paths).await.map_err(|e| gone(&e))?;
    Ok(RetryUploadsResponse { retried: retried as u64 })
}

fn there(uploads: Option<&UploadsHandle>) -> Result<&UploadsHandle, Status> {
    let none = "this node uploads nothing: it has neither --cache nor --upload-command, or has \
                --no-upload";
    uploads.ok_or_else(|| Status::failed_precondition(none))
}

fn gone(error: &ActorGone) -> Status {
    Status::unavailable(error.to_string())
}

fn upload(summary: UploadSummary) -> Upload {
    Upload {
        path: summary.path.to_string(),
        state: summary.state.to_owned(),
        attempts: summary.attempts,
        queued_at: summary.queued_at,
        again_in: summary.again_in.map(|left| left.as_secs_f64()),
        last_error: summary.last_error.unwrap_or_default(),
    }
}
