//! Settings of the cache's builders.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::actors::registry::AddressKind;
use crate::k8s::BUILDER_LABELS;
use crate::model::Feature;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Builders")]
pub struct BuilderSettings {
    /// Namespace whose node pods build for the cache; without it there is no Kubernetes, and
    /// --nix-option builders=… names builders.
    #[arg(long, env = "NIX_CSI_BUILDER_NAMESPACE", value_parser = super::not_empty, value_name = "NAMESPACE")]
    pub builder_namespace: Option<String>,
    /// Labels of those pods.
    #[arg(long, env = "NIX_CSI_BUILDER_SELECTOR", default_value = BUILDER_LABELS, value_name = "SELECTOR")]
    pub builder_selector: String,
    /// How a builder is reached: by its pod's address, or by its name in the DNS if it has one.
    #[arg(long, env = "NIX_CSI_BUILDER_ADDRESS", value_enum, default_value = "pod-ip")]
    pub builder_address: BuilderAddressArg,
    /// The cluster's domain in its DNS.
    #[arg(long, env = "NIX_CSI_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Private key with which the cache logs in at builders; without it one is made in --state-dir, and
    /// its public half is in the log.
    #[arg(long, env = "NIX_CSI_BUILDER_KEY", value_parser = super::absolute, value_name = "FILE")]
    pub builder_key: Option<PathBuf>,
    /// Public host key that all builders have, a .pub file.
    #[arg(long, env = "NIX_CSI_BUILDER_HOST_KEY", value_parser = super::absolute, requires = "builder_namespace", value_name = "FILE")]
    pub builder_host_key: Option<PathBuf>,
    /// Builds at once on each builder, whatever it says itself; without it and its word one.
    #[arg(long, env = "NIX_CSI_BUILDER_JOBS")]
    pub builder_jobs: Option<NonZeroU32>,
    /// A feature of all builders beside those that they say, such as big-parallel; repeat it for several.
    #[arg(long, env = "NIX_CSI_BUILDER_FEATURES", value_delimiter = ',', value_parser = feature, value_name = "FEATURE")]
    pub builder_feature: Vec<Feature>,
    /// How to reach the API server; without it, as the pod's service account.
    #[arg(long, env = "NIX_CSI_KUBECONFIG", value_parser = super::absolute, requires = "builder_namespace")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BuilderAddressArg {
    PodIp,
    Hostname,
}

impl From<BuilderAddressArg> for AddressKind {
    fn from(arg: BuilderAddressArg) -> Self {
        match arg {
            BuilderAddressArg::PodIp => Self::PodIp,
            BuilderAddressArg::Hostname => Self::Hostname,
        }
    }
}

fn feature(text: &str) -> Result<Feature, String> {
    Feature::parse(text)
        .ok_or_else(|| format!("{text:?} is no feature: write {}", Feature::ALLOWED))
}
