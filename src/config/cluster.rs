//! Settings of a node in a Kubernetes cluster. Without any of them there is no Kubernetes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::grpc::Endpoint;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClusterSettings {
    /// The kubelet's plugins_registry directory, such as /var/lib/kubelet/plugins_registry: the driver
    /// registers itself there. Without it a registrar sidecar has to.
    #[arg(long, env = "NIX_CSI_REGISTRATION_DIR", value_parser = super::absolute)]
    pub registration_dir: Option<PathBuf>,
    /// The CSI socket as the kubelet finds it, if that is not where --endpoint has it.
    #[arg(long, env = "NIX_CSI_KUBELET_ENDPOINT")]
    pub kubelet_endpoint: Option<Endpoint>,
    /// The Node object of this machine: its pods are watched, and told what happens by Events.
    #[arg(long, env = "NIX_CSI_NODE_NAME", value_parser = super::not_empty)]
    pub node_name: Option<String>,
    /// How to reach the API server; without it, as the pod's service account.
    #[arg(long, env = "NIX_CSI_KUBECONFIG", value_parser = super::absolute, requires = "node_name")]
    pub kubeconfig: Option<PathBuf>,
    /// Takes the taint <driver name>/agent-not-ready from the node once the kubelet has registered
    /// the driver.
    #[arg(
        long,
        env = "NIX_CSI_STARTUP_TAINT",
        requires_all = ["node_name", "registration_dir"]
    )]
    pub startup_taint: bool,
    /// Refuses volumes about which the kubelet does not say whose they are; --registration-dir and
    /// --node-name do too.
    #[arg(long, env = "NIX_CSI_REQUIRE_POD_INFO")]
    pub require_pod_info: bool,
    /// How long a pod must be gone, from the API server and the kubelet's directory, before a volume of
    /// it that nobody has unpublished is.
    #[arg(long, env = "NIX_CSI_SWEEP_AFTER", value_parser = humantime::parse_duration, default_value = "10m")]
    pub sweep_after: Duration,
}

impl ClusterSettings {
    /// Whether who calls is a kubelet.
    pub fn kubelet_calls(&self) -> bool {
        self.require_pod_info || self.registration_dir.is_some() || self.node_name.is_some()
    }
}
