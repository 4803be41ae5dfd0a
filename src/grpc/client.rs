//! A client of a node's sockets, as the kubelet is one; for the command line, health and tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tower::service_fn;

use super::proto::admin::admin_client::AdminClient;
use super::proto::admin::debug_client::DebugClient;
use super::proto::csi::identity_client::IdentityClient;
use super::proto::csi::node_client::NodeClient;
use crate::trace::TRACEPARENT;
pub use tonic::transport::Channel;
pub use tonic::{Code, Response, Status};

/// Long enough for a busy machine, short enough to tell "not there" from "slow".
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("can't reach nix-csi at {}: {reason}", .socket.display())]
pub struct Unreachable {
    socket: PathBuf,
    reason: String,
}

/// A fresh connection to a socket.
pub async fn connect(socket: &Path) -> Result<Channel, Unreachable> {
    let path = socket.to_owned();
    let dial = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let connected = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .connect_with_connector(dial)
        .await;
    match connected {
        Ok(channel) => Ok(channel),
        Err(error) => {
            // tonic's own error hides the io error, which tells what to do.
            let refused = UnixStream::connect(socket).await.err();
            let reason = refused.map_or_else(|| error.to_string(), |e| hint(&e));
            Err(Unreachable { socket: socket.to_owned(), reason })
        }
    }
}

fn hint(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "permission denied: the socket is for root alone; run this as root".to_owned()
        }
        std::io::ErrorKind::NotFound => {
            "there is no such socket: start `nix-csi node`, or name its socket".to_owned()
        }
        std::io::ErrorKind::ConnectionRefused => {
            "nobody listens: `nix-csi node` is not running".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Metadata of a call that no kubelet makes: a person's, who speaks for no pod. Only root reaches the
/// socket, and nothing that a pod's author writes gets into a call's metadata.
const PERSON: &str = "nix-csi-person";

/// A call that is part of a trace, if `traceparent` is one's.
pub fn within<T>(traceparent: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(Ok(parent)) = traceparent.map(str::parse) {
        request.metadata_mut().insert(TRACEPARENT, parent);
    }
    request
}

/// A call of a person's at a terminal.
pub fn by_a_person<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert(PERSON, MetadataValue::from_static("true"));
    request
}

pub(super) fn is_by_a_person<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(PERSON)
}

pub async fn node(socket: &Path) -> Result<NodeClient<Channel>, Unreachable> {
    connect(socket).await.map(NodeClient::new)
}

pub async fn identity(socket: &Path) -> Result<IdentityClient<Channel>, Unreachable> {
    connect(socket).await.map(IdentityClient::new)
}

pub async fn admin(socket: &Path) -> Result<AdminClient<Channel>, Unreachable> {
    connect(socket).await.map(AdminClient::new)
}

pub async fn debug(socket: &Path) -> Result<DebugClient<Channel>, Unreachable> {
    connect(socket).await.map(DebugClient::new)
}
