//! CSI's Identity and Node services, our Admin service and the kubelet's registration, on Unix
//! sockets; and the client of them that the command line and tests use. The only room that names tonic.

mod admin;
pub mod client;
mod debug;
mod gc;
mod identity;
mod keep;
mod metrics;
mod node;
mod policy;
mod publish_request;
mod registration;
mod server;
mod socket;
mod status;
mod traced;
mod uploads;

pub use admin::{AdminService, NodeFacts};
pub use debug::DebugService;
pub use identity::IdentityService;
pub(crate) use metrics::register_metrics;
pub use node::NodeService;
pub use publish_request::Admittance;
#[cfg(any(test, fuzzing))]
pub(crate) use publish_request::fuzz_publish;
pub use registration::{RegistrationSocket, registration_socket};
pub use server::{serve, serve_debug};
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
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
}
