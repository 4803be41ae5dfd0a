//! The uploader as other rooms see it.

use std::time::Duration;

use actix::Addr;

use super::{CacheUploader, ListUploads, RetryUploads, Stop, UploadsReport};
use crate::actors::core::{ActorGone, ask};
use crate::model::StorePath;

#[derive(Clone)]
pub struct UploadsHandle(pub(crate) Addr<CacheUploader>);

impl UploadsHandle {
    pub async fn list(&self) -> Result<UploadsReport, ActorGone> {
        ask(&self.0, ListUploads).await
    }

    /// Tries these now, or all that were given up; how many there were.
    pub async fn retry(&self, paths: Vec<StorePath>) -> Result<usize, ActorGone> {
        ask(&self.0, RetryUploads(paths)).await
    }

    /// Lets pushes under way go on for `grace`; the rest stays in the queue.
    pub(crate) async fn flush(&self, grace: Duration) {
        let _ = ask(&self.0, Stop(grace)).await; // gone is as good as stopped
    }
}
