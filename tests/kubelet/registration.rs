//! Registration: the socket, what it says, and when it is there.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix_csi::grpc::client;
use nix_csi::grpc::proto::registration::registration_client::RegistrationClient;
use nix_csi::grpc::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus};

use crate::lab;
use crate::lab::{Lab, Node, eventually, until};

/// The kubelet's plugins_registry.
struct Registry {
    dir: PathBuf,
}

impl Registry {
    fn new(lab: &Lab) -> Self {
        let dir = lab.path("plugins_registry");
        fs::create_dir(&dir).unwrap();
        Self { dir }
    }

    fn option(&self) -> [&str; 2] {
        ["--registration-dir", self.dir.to_str().unwrap()]
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("nix.csi.store@reg.sock")
    }

    fn inode(&self) -> Option<u64> {
        fs::symlink_metadata(self.socket()).ok().map(|meta| meta.ino())
    }

    async fn found(&self) -> RegistrationClient<client::Channel> {
        until("the registration socket", async || client::connect(&self.socket()).await.is_ok())
            .await;
        RegistrationClient::new(client::connect(&self.socket()).await.unwrap())
    }

    async fn info(&self) -> PluginInfo {
        self.found().await.get_info(InfoRequest {}).await.unwrap().into_inner()
    }

    async fn says(&self, plugin_registered: bool, error: &str) {
        let status = RegistrationStatus { plugin_registered, error: error.to_owned() };
        self.found().await.notify_registration_status(status).await.unwrap();
    }
}

async fn registered(node: &Node) {
    until("the node is ready", async || node.probe().await == Ok(true)).await;
}

#[tokio::test]
async fn the_kubelet_finds_the_driver_and_its_word_makes_the_node_ready() {
    let lab = lab!();
    let registry = Registry::new(&lab);
    let node = lab.starting_node(&registry.option());
    let info = registry.info().await;
    assert_eq!((&*info.r#type, &*info.name), ("CSIPlugin", "nix.csi.store"));
    assert_eq!(info.endpoint, node.csi.to_str().unwrap());
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let meta = fs::symlink_metadata(registry.socket()).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(node.probe().await, Ok(false), "asked is not registered");
    registry.says(true, "").await;
    registered(&node).await;
}

#[tokio::test]
async fn a_refusal_is_logged_and_the_driver_offered_again() {
    let lab = lab!();
    let registry = Registry::new(&lab);
    let endpoint = ["--kubelet-endpoint", "unix:///host/csi.sock"];
    let node = lab.starting_node(&[registry.option(), endpoint].concat());
    assert_eq!(registry.info().await.endpoint, "/host/csi.sock");
    let first = registry.inode();
    registry.says(false, "unsupported for a test").await;
    eventually("another socket", || registry.inode().is_some_and(|new| Some(new) != first));
    assert!(node.log().contains("the kubelet refused the driver: unsupported for a test"));
    registry.says(true, "").await;
    registered(&node).await;
    // Somebody cleans the directory.
    fs::remove_file(registry.socket()).unwrap();
    registry.says(true, "").await;
    registered(&node).await;
    let metrics = node.metrics();
    for (outcome, count) in [("registered", 2), ("refused", 1)] {
        let line = format!("nixcsi_registrations_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}:\n{metrics}");
    }
}

#[tokio::test]
async fn the_socket_goes_with_sigterm_and_a_killed_ones_is_replaced() {
    let lab = lab!();
    let registry = Registry::new(&lab);
    let mut node = lab.starting_node(&registry.option());
    registry.says(true, "").await;
    registered(&node).await;
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert_eq!(registry.inode(), None);

    let node = lab.starting_node(&registry.option());
    registry.says(true, "").await;
    node.kill();
    let stale = registry.inode();
    assert!(stale.is_some(), "nobody was there to remove it");
    let node = lab.starting_node(&registry.option());
    eventually("another socket", || registry.inode().is_some_and(|new| Some(new) != stale));
    registry.says(true, "").await;
    registered(&node).await;
}
