//! Settings of `nix-csi bootstrap`.

use std::path::PathBuf;

use clap::Args;

use super::{Programs, absolute, store_path};
use crate::model::StorePath;

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// The environment's store path; where var/result of --from leads, if not given.
    #[arg(env = "NIX_CSI_BOOTSTRAP_ENVIRONMENT", value_parser = store_path)]
    pub environment: Option<StorePath>,
    /// The image's /nix.
    #[arg(long, env = "NIX_CSI_BOOTSTRAP_FROM", value_parser = absolute, value_name = "DIR", default_value = "/nix")]
    pub from: PathBuf,
    /// Where the directory is mounted that will be /nix: the store of a node or of a cache, which may be in
    /// use.
    #[arg(long, env = "NIX_CSI_BOOTSTRAP_TO", value_parser = absolute, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub programs: Programs,
    /// Debug builds only: die at the named point.
    #[arg(long, hide = true)]
    pub crash_at: Option<String>,
}
