//! The Debug service: what a bug report has of this process.

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::proto::admin::debug_server::Debug;
use super::proto::admin::{BundlePart, BundleRequest};
use crate::bundle::{self, Cleaner, Known, Origin, Part};

pub struct DebugService {
    pub origins: Vec<Origin>,
    /// Secrets are read anew for each bundle.
    pub known: Known,
    /// Ends streams, which would hold up a shutdown.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Debug for DebugService {
    type BundleStream = BoxStream<'static, Result<BundlePart, Status>>;

    async fn bundle(
        &self,
        _: Request<BundleRequest>,
    ) -> Result<Response<Self::BundleStream>, Status> {
        let known = self.known.clone();
        let cleaner = spawn_blocking(move || Cleaner::of(&known)).await;
        let cleaner = cleaner.map_err(|panic| Status::internal(panic.to_string()))?;
        let parts = bundle::collect(self.origins.clone(), cleaner).map(|part| Ok(message(part)));
        Ok(Response::new(parts.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }
}

fn message(Part { name, content, lacks }: Part) -> BundlePart {
    BundlePart { name, content, lacks }
}
