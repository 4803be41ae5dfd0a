//! CSI's Identity and Node services and our Admin service, on Unix sockets; and the client of both
//! that the command line uses. The only room that names tonic.

mod admin;
pub mod client;
mod identity;
mod node;
mod publish_request;
mod server;
mod socket;
mod status;

pub use admin::{AdminService, NodeFacts};
pub use identity::IdentityService;
pub use node::NodeService;
pub use server::serve;
pub use socket::{BindError, Endpoint, InvalidEndpoint};

/// Code generated from `proto/`.
#[allow(clippy::pedantic, unreachable_pub, reason = "generated code")]
pub mod proto {
    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    pub mod admin {
        tonic::include_proto!("nixcsi.v1");
    }
}
