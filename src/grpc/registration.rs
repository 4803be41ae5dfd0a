//! The kubelet's plugin registration (k8s.io/kubelet, `pluginregistration` v1): the kubelet finds the
//! socket in its plugins_registry, asks what it is, calls NodeGetInfo on the endpoint it is told,
//! and says what it made of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::metrics::Measured;
use super::proto::csi::GetPluginInfoRequest;
use super::proto::registration::registration_server::{Registration, RegistrationServer};
use super::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use super::{Endpoint, client};
use crate::actors::registrar::{Door, Doorway, Notice};

/// The API's name for a CSI driver.
const CSI: &str = "CSIPlugin";
/// CSI versions that the kubelet knows: it wants a 1.x.y.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// The registration socket of one driver.
pub struct RegistrationSocket {
    socket: Endpoint,
    /// The driver's own socket, as this process sees it.
    csi: PathBuf,
    info: PluginInfo,
}

/// The kubelet sends the socket's escaped path as `:authority`. With an `@` in it, what is before reads as user
/// information and HTTP/2 lets the rest pass; without, it resets the stream.
pub fn registration_socket(dir: &Path, driver: &str) -> PathBuf {
    dir.join(format!("{driver}@reg.sock"))
}

impl RegistrationSocket {
    /// `dir` is the kubelet's plugins_registry, `csi` the driver's socket, and `endpoint` its path as
    /// the kubelet sees it.
    pub fn new(dir: &Path, driver: &str, csi: &Path, endpoint: &Path) -> Self {
        let socket = Endpoint::from(registration_socket(dir, driver));
        let info = PluginInfo {
            r#type: CSI.to_owned(),
            name: driver.to_owned(),
            endpoint: endpoint.display().to_string(),
            supported_versions: VERSIONS.map(str::to_owned).to_vec(),
        };
        Self { socket, csi: csi.to_owned(), info }
    }
}

impl Doorway for RegistrationSocket {
    fn open(
        &self,
        hear: Box<dyn Fn(Notice) + Send + Sync>,
    ) -> BoxFuture<'static, Result<Box<dyn Door>, String>> {
        let (socket, csi, info) = (self.socket.clone(), self.csi.clone(), self.info.clone());
        async move {
            // What the kubelet does next must work.
            let mut driver = client::identity(&csi).await.map_err(|e| e.to_string())?;
            let asked = driver.get_plugin_info(GetPluginInfoRequest {}).await;
            asked.map_err(|e| format!("the CSI socket does not answer: {}", e.message()))?;

            let listener = socket.bind().map_err(|e| e.to_string())?;
            let path = socket.path().to_owned();
            let inode = inode(&path).ok_or_else(|| format!("{} is gone", path.display()))?;
            let service = Measured(RegistrationServer::new(Service { info, hear }));
            let incoming = UnixListenerStream::new(listener);
            let served = Server::builder().add_service(service).serve_with_incoming(incoming);
            let server = tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(%error, "the registration server failed");
                }
            });
            Ok(Box::new(OpenDoor { path, inode, server }) as Box<dyn Door>)
        }
        .boxed()
    }
}

struct OpenDoor {
    path: PathBuf,
    inode: (u64, u64),
    server: JoinHandle<()>,
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Door for OpenDoor {
    fn is_there(&self) -> bool {
        !self.server.is_finished() && inode(&self.path) == Some(self.inode)
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.server.abort();
        // A successor's socket under the same name is not ours to take.
        if inode(&self.path) == Some(self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(socket = %self.path.display(), %error, "the registration socket stays");
        }
    }
}

struct Service {
    info: PluginInfo,
    hear: Box<dyn Fn(Notice) + Send + Sync>,
}

#[tonic::async_trait]
impl Registration for Service {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        (self.hear)(Notice::Asked);
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        (self.hear)(if plugin_registered { Notice::Registered } else { Notice::Refused(error) });
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
