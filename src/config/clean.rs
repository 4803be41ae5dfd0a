//! Settings of `nix-csi clean`.

use std::path::PathBuf;

use clap::Args;

use super::{DEFAULT_STATE_DIR, absolute};
use crate::grpc::Endpoint;

/// Those of the node that was here.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Also what the store holds: all of /nix. Not where the machine's own Nix serves.
    #[arg(long)]
    pub store: bool,
    /// Stays afterwards until a signal, as a container has to that would be started again.
    #[arg(long)]
    pub stay: bool,
    /// Views, writable layers and caches.
    #[arg(long, env = "NIX_CSI_STATE_DIR", value_parser = absolute, default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Volume records and sockets.
    #[arg(long, env = "NIX_CSI_RUN_DIR", value_parser = absolute, default_value = "/run/nix-csi")]
    pub run_dir: PathBuf,
    /// The CSI socket; below a kubelet's plugins its directory goes with it.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///run/nix-csi/csi.sock")]
    pub endpoint: Endpoint,
    /// The driver's name in CSI calls.
    #[arg(long, env = "NIX_CSI_DRIVER_NAME", default_value = "nix.csi.store")]
    pub driver_name: String,
    /// The kubelet's plugins_registry directory.
    #[arg(long, env = "NIX_CSI_REGISTRATION_DIR", value_parser = absolute)]
    pub registration_dir: Option<PathBuf>,
    /// Socket of the nix-daemon that was lent, whose store stays.
    #[arg(long, env = "NIX_CSI_NIX_DAEMON_SOCKET", conflicts_with = "store")]
    pub nix_daemon_socket: Option<PathBuf>,
}
