//! Settings of `nix-csi debug`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DEFAULT_STATE_DIR, Programs, absolute};
use crate::grpc::Endpoint;

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Write one archive for a bug report, without secrets (root).
    Bundle(BundleArgs),
}

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The archive, a .tar.gz that nobody else may read; `-` is standard output. Without it one of this moment
    /// in this directory.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replaces a file that is there.
    #[arg(long)]
    pub force: bool,
    /// The admin socket of a node or of a cache, which may be down.
    #[arg(long, env = "NIX_CSI_ADMIN_ENDPOINT", default_value = "unix:///run/nix-csi/admin.sock")]
    pub admin_endpoint: Endpoint,
    /// Its state directory.
    #[arg(long, env = "NIX_CSI_STATE_DIR", value_parser = absolute, default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    #[command(flatten)]
    pub programs: Programs,
}
