//! Serving on a Unix socket until told to stop.

use std::future::Future;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Router;

use super::metrics::Measured;
use super::proto::admin::admin_server::AdminServer;
use super::proto::admin::debug_server::DebugServer;
use super::proto::csi::identity_server::IdentityServer;
use super::proto::csi::node_server::NodeServer;
use super::{AdminService, DebugService, IdentityService, NodeService};

/// Serves CSI and Admin until `stop` ends; calls under way are finished.
pub async fn serve(
    (csi, identity, node): (UnixListener, IdentityService, NodeService),
    (admin_socket, admin, debug): (UnixListener, AdminService, DebugService),
    stop: impl Future<Output = ()> + Clone + Send + 'static,
) -> Result<(), String> {
    let csi_routes = Server::builder()
        .add_service(Measured(IdentityServer::new(identity)))
        .add_service(Measured(NodeServer::new(node)));
    let admin_routes = Server::builder()
        .add_service(Measured(AdminServer::new(admin)))
        .add_service(Measured(DebugServer::new(debug)));
    tokio::try_join!(
        run("CSI", csi_routes, csi, stop.clone()),
        run("admin", admin_routes, admin_socket, stop),
    )?;
    Ok(())
}

/// Serves what a cache says of itself until `stop` ends.
pub async fn serve_debug(
    socket: UnixListener,
    debug: DebugService,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let routes = Server::builder().add_service(Measured(DebugServer::new(debug)));
    run("admin", routes, socket, stop).await
}

async fn run(
    what: &str,
    routes: Router,
    listener: UnixListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let incoming = UnixListenerStream::new(listener);
    let served = tokio::spawn(routes.serve_with_incoming_shutdown(incoming, stop));
    match served.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the {what} server failed: {error}")),
        Err(panic) => Err(format!("the {what} server panicked: {panic}")),
    }
}
