//! CSI Identity: who we are and whether we are well.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::proto::csi::identity_server::Identity;
use super::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, ProbeRequest, ProbeResponse,
};
use crate::actors::node::NodeActors;
use crate::health::{Condition, Health};

/// For a message through each core actor; they take microseconds.
const ANSWER: Duration = Duration::from_secs(3);

pub struct IdentityService {
    pub driver: String,
    pub health: Health,
    pub actors: NodeActors,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: [].into(),
        }))
    }

    /// None: there is no controller service.
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities: vec![] }))
    }

    /// CSI 1.12, Probe: `ready` is false while the plugin initialises; a plugin that isn't healthy
    /// answers FAILED_PRECONDITION.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        match self.health.overall() {
            (Condition::Ready | Condition::Impaired(_), _) => {
                match timeout(ANSWER, self.actors.answer()).await {
                    Ok(Ok(())) => Ok(Response::new(ProbeResponse { ready: Some(true) })),
                    Ok(Err(gone)) => Err(Status::failed_precondition(gone.to_string())),
                    Err(_) => Err(Status::failed_precondition(format!(
                        "the actors gave no answer within {ANSWER:?}"
                    ))),
                }
            }
            (Condition::Starting, _) => Ok(Response::new(ProbeResponse { ready: Some(false) })),
            (Condition::Sick(_), reason) => Err(Status::failed_precondition(reason)),
        }
    }
}
