//! Settings of every process that stays: the node and the cache.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{DEFAULT_STATE_DIR, Programs, TraceSettings, absolute, key_value};
use crate::telemetry;

#[derive(Debug, Clone, Args)]
pub struct ProcessSettings {
    /// Views, writable layers and caches. Views need the store's file system.
    #[arg(long, env = "NIX_CSI_STATE_DIR", value_parser = absolute, default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Volume records and the daemon's socket; may be a tmpfs, must survive a restart of the driver.
    #[arg(long, env = "NIX_CSI_RUN_DIR", value_parser = absolute, default_value = "/run/nix-csi")]
    pub run_dir: PathBuf,
    /// Address of /metrics, /healthz, /readyz and /log-filter; the filter can be changed from
    /// loopback only.
    #[arg(long, env = "NIX_CSI_HTTP", default_value = "127.0.0.1:9809")]
    pub http: SocketAddr,
    #[command(flatten)]
    pub programs: Programs,
    /// A Nix setting for all commands and for the node's own daemon; repeat it for several.
    #[arg(long, env = "NIX_CSI_NIX_OPTIONS", value_delimiter = '\n', value_parser = key_value, value_name = "KEY=VALUE")]
    pub nix_option: Vec<(String, String)>,
    /// A nix.conf of yours on top of the system's, such as a mounted ConfigMap; command-line settings win
    /// over it. It is followed: a change counts once Nix takes it, and builds under way go on.
    #[arg(long, env = "NIX_CSI_NIX_CONF", value_parser = absolute, value_name = "FILE")]
    pub nix_conf: Option<PathBuf>,
    /// Which of root's privileges are kept: what docs/security.md lists, or all that the process was started
    /// with. The way out if something needs more.
    #[arg(long, env = "NIX_CSI_PRIVILEGES", value_enum, default_value = "least")]
    pub privileges: PrivilegesArg,
    /// How long calls under way may take at shutdown.
    #[arg(long, env = "NIX_CSI_GRACE", value_parser = humantime::parse_duration, default_value = "10s")]
    pub grace: Duration,
    /// Log filter, such as `info` or `nix_csi=debug`; /log-filter changes it while running.
    #[arg(long, env = "NIX_CSI_LOG", default_value = telemetry::DEFAULT_FILTER, value_parser = telemetry::checked)]
    pub log: String,
    #[arg(long, env = "NIX_CSI_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub traces: TraceSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrivilegesArg {
    Least,
    All,
}
