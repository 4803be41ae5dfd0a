//! Settings of `nix-csi check`, and of the pods that it runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Output;
use crate::k8s::{CanaryNodes, CheckOptions};

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// How to reach the API server; without it, as kubectl does, or as the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The driver's namespace.
    #[arg(long, short, default_value = "nix-csi", value_parser = super::not_empty)]
    pub namespace: String,
    /// The driver's name in the CSIDriver object.
    #[arg(long, env = "NIX_CSI_DRIVER_NAME", default_value = "nix.csi.store", value_parser = super::not_empty)]
    pub driver_name: String,
    /// Namespace of the canary pods, whose policy counts for them; the driver's if not given.
    #[arg(long, value_name = "NAMESPACE", value_parser = super::not_empty)]
    pub canary_namespace: Option<String>,
    /// Run a canary on this node; repeat it for several. Without it on one.
    #[arg(long, value_name = "NAME", value_parser = super::not_empty, conflicts_with = "all_nodes")]
    pub node: Vec<String>,
    /// Run a canary on each node with a driver.
    #[arg(long)]
    pub all_nodes: bool,
    /// How long one canary may take.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2m")]
    pub timeout: Duration,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

impl CheckArgs {
    pub fn options(&self) -> CheckOptions {
        let nodes = match (self.all_nodes, self.node.is_empty()) {
            (true, _) => CanaryNodes::All,
            (false, true) => CanaryNodes::One,
            (false, false) => CanaryNodes::Named(self.node.clone()),
        };
        CheckOptions {
            namespace: self.namespace.clone(),
            driver: self.driver_name.clone(),
            canary_namespace: self.canary_namespace.as_ref().unwrap_or(&self.namespace).clone(),
            nodes,
            timeout: self.timeout,
        }
    }
}

/// Of a canary's container.
#[derive(Debug, Args)]
pub struct CanaryArgs {
    /// Where its volume is.
    pub directory: PathBuf,
    /// What a file in there has.
    pub text: String,
}
