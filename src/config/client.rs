//! Settings of a person's commands to a node.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::grpc::Endpoint;

/// Where a client finds the node.
#[derive(Debug, Clone, Args)]
pub struct Sockets {
    /// The node's CSI socket.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///run/nix-csi/csi.sock")]
    pub endpoint: Endpoint,
    /// The node's admin socket.
    #[arg(long, env = "NIX_CSI_ADMIN_ENDPOINT", default_value = "unix:///run/nix-csi/admin.sock")]
    pub admin_endpoint: Endpoint,
    /// Of who started this, in whose trace the calls are.
    #[arg(long, hide = true, env = "TRACEPARENT")]
    pub traceparent: Option<String>,
}

#[derive(Debug, Args)]
pub struct MountArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where to mount it; made if it is not there.
    pub directory: PathBuf,
    /// Writable: writes stay in this mount and go with it.
    #[arg(long)]
    pub rw: bool,
    /// How much may be written, such as 500Mi or 2Gi; without it there is no limit.
    #[arg(long, requires = "rw")]
    pub size: Option<String>,
    /// The nix program, which copies a local flake into the store.
    #[arg(long, env = "NIX_CSI_NIX", default_value = "nix")]
    pub nix: PathBuf,
    #[command(flatten)]
    pub sockets: Sockets,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct SourceArgs {
    /// A flake reference, such as `.#hello`; a local flake is copied into the store.
    #[arg(long)]
    pub flake_ref: Option<String>,
    /// A store path.
    #[arg(long)]
    pub store_path: Option<String>,
    /// The text of a Nix expression.
    #[arg(long)]
    pub expr: Option<String>,
}

#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Where it is mounted.
    pub directory: PathBuf,
    #[command(flatten)]
    pub sockets: Sockets,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait until the node serves, at most so long; it is an error if it does not.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub sockets: Sockets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}
