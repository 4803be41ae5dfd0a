//! The command line and the environment, read here and nowhere else.

mod bootstrap;
mod builders;
mod builds;
mod cache;
mod cache_role;
mod check;
mod clean;
mod client;
mod cluster;
mod debug;
mod gc;
mod keep;
mod origin;
mod policy;
mod process;
mod programs;
mod ssh;
mod traces;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use bootstrap::BootstrapArgs;
pub use builders::BuilderSettings;
pub use builds::{BuildSettings, BuildsArgs, BuildsCommand, EvalModeArg, RetryArgs};
pub use cache::{BuildOnArg, CacheSettings, RetryUploadsArgs, UploadsArgs, UploadsCommand};
pub use cache_role::{CacheConfig, SSH_LISTEN};
pub use check::{CanaryArgs, CheckArgs};
pub use clean::CleanArgs;
pub use client::{MountArgs, Output, Sockets, SourceArgs, StatusArgs, UnmountArgs};
pub use cluster::ClusterSettings;
pub use debug::{BundleArgs, DebugCommand};
pub use gc::{GcArgs, GcSettings};
pub use keep::{KeepSettings, PrefetchArgs};
pub use origin::{Setting, settings_in_use};
pub use policy::{ExplainArgs, PolicyCommand, PolicySettings};
pub use process::{LogFormat, PrivilegesArg, ProcessSettings};
pub use programs::Programs;
pub use ssh::{SshSettings, SshdSettings};
pub use traces::TraceSettings;

use crate::grpc::Endpoint;
use crate::model::StorePath;
use crate::mount::PresentationChoice;

/// Where state is, unless a setting says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/nix/var/nix-csi";

/// Mounts Nix closures into pods and directories.
#[derive(Debug, Parser)]
#[command(name = "nix-csi", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve CSI on this machine: build, present and mount closures.
    Node(Box<NodeConfig>),
    /// Serve a cluster's nodes: binary cache and coordinator of builds, over ssh.
    Cache(Box<CacheConfig>),
    /// Mount a closure at a directory.
    Mount(MountArgs),
    /// Unmount a directory that `mount` or a kubelet has mounted.
    Unmount(UnmountArgs),
    /// Realise and present closures now, so that mounts of them are warm.
    Prefetch(PrefetchArgs),
    /// Show volumes, realisations under way, views and what is kept warm.
    Status(StatusArgs),
    /// Show builds under way and failures that wait, or let failures be tried again.
    Builds(BuildsArgs),
    /// Show uploads to the cluster's cache, or try them again.
    Uploads(UploadsArgs),
    /// Show what the policy says for a namespace, or whether a policy is one.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Collect garbage of a store, show what would go, or why a path stays (root).
    Gc(GcArgs),
    /// Collect what a bug report needs.
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Check an installation in a cluster: what runs, what is registered, and that a pod mounts a volume.
    Check(CheckArgs),
    /// What pods of `check` run.
    #[command(hide = true)]
    Canary(CanaryArgs),
    /// Take away what a node leaves on this machine, once nothing of it is mounted (root).
    Clean(CleanArgs),
    /// Copy the environment of an image that Nix has built into the store that is mounted over it.
    Bootstrap(BootstrapArgs),
}

#[derive(Debug, Clone, Args)]
pub struct NodeConfig {
    #[command(flatten)]
    pub process: ProcessSettings,
    /// CSI socket, mode 0600: its clients are root.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///run/nix-csi/csi.sock")]
    pub endpoint: Endpoint,
    /// Socket for status and progress, mode 0600.
    #[arg(long, env = "NIX_CSI_ADMIN_ENDPOINT", default_value = "unix:///run/nix-csi/admin.sock")]
    pub admin_endpoint: Endpoint,
    /// The driver's name in CSI calls.
    #[arg(long, env = "NIX_CSI_DRIVER_NAME", default_value = "nix.csi.store")]
    pub driver_name: String,
    /// This node's id, 256 bytes at most; the host's name if not given.
    #[arg(long, env = "NIX_CSI_NODE_ID", value_parser = node_id)]
    pub node_id: Option<String>,
    /// Directory below which targets are allowed; repeat it for several.
    #[arg(long, env = "NIX_CSI_TARGET_ROOTS", value_delimiter = ':', default_value = "/")]
    pub target_root: Vec<PathBuf>,
    /// How views show the store's files: `auto` takes redirect where the kernel serves it.
    #[arg(long, env = "NIX_CSI_PRESENTATION", value_enum, default_value = "auto")]
    pub presentation: PresentationArg,
    /// Socket of a nix-daemon that already runs on this store; without it the node runs its own.
    #[arg(long, env = "NIX_CSI_NIX_DAEMON_SOCKET")]
    pub nix_daemon_socket: Option<PathBuf>,
    #[command(flatten)]
    pub builds: BuildSettings,
    #[command(flatten)]
    pub cache: CacheSettings,
    #[command(flatten)]
    pub ssh: SshSettings,
    #[command(flatten)]
    pub sshd: SshdSettings,
    #[command(flatten)]
    pub cluster: ClusterSettings,
    #[command(flatten)]
    pub policy: PolicySettings,
    #[command(flatten)]
    pub kept: KeepSettings,
    #[command(flatten)]
    pub gc: GcSettings,
    /// How long a publish is held before it is answered ABORTED; the kubelet's limit is 2 minutes.
    #[arg(long, env = "NIX_CSI_HOLD", value_parser = humantime::parse_duration, default_value = "100s")]
    pub hold: Duration,
    /// Publishes that may wait at once; one more is answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "NIX_CSI_MAX_PUBLISHES", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_publishes: u32,
    /// How long a view without volumes is kept for the next one.
    #[arg(long, env = "NIX_CSI_KEEP_IDLE", value_parser = humantime::parse_duration, default_value = "10m")]
    pub keep_idle: Duration,
    /// How often views are compared with the store below them.
    #[arg(long, env = "NIX_CSI_VERIFY_INTERVAL", value_parser = humantime::parse_duration, default_value = "5m")]
    pub verify_interval: Duration,
    /// Debug builds only: die at the named point.
    #[arg(long, hide = true)]
    pub crash_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PresentationArg {
    Auto,
    Redirect,
    Hardlink,
}

impl From<PresentationArg> for PresentationChoice {
    fn from(arg: PresentationArg) -> Self {
        match arg {
            PresentationArg::Auto => Self::Auto,
            PresentationArg::Redirect => Self::Redirect,
            PresentationArg::Hardlink => Self::Hardlink,
        }
    }
}

/// As the downward API gives an empty text where it has nothing to say.
fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn node_id(text: &str) -> Result<String, String> {
    /// CSI 1.12, NodeGetInfo: "SHALL NOT exceed 256 bytes".
    const MAX: usize = 256;
    match text.len() {
        1..=MAX => Ok(text.to_owned()),
        len => Err(format!("it has {len} bytes: give it 1 to {MAX}")),
    }
}

/// The node's children run elsewhere, and records outlive the process.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("write an absolute path".to_owned()) }
}

fn store_path(text: &str) -> Result<StorePath, String> {
    StorePath::parse(text).map_err(|error| error.to_string())
}

/// `name:base64`, as `nix key convert-secret-to-public` prints it; a mounted file ends in a newline.
fn signing_public_key(text: &str) -> Result<String, String> {
    use base64::Engine as _;
    /// Of an ed25519 key.
    const BYTES: usize = 32;
    let text = text.trim();
    let key = text.split_once(':').filter(|(name, _)| {
        !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control())
    });
    let decoded =
        key.and_then(|(_, key)| base64::engine::general_purpose::STANDARD.decode(key).ok());
    match decoded {
        Some(bytes) if bytes.len() == BYTES => Ok(text.to_owned()),
        // A secret key, which is twice as long, is not repeated.
        _ => Err("write NAME:KEY, a public key as `nix key convert-secret-to-public` prints it"
            .to_owned()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let key_ok = !key.is_empty()
        && key.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    // Arguments of processes are for everybody to read.
    let is_secret = matches!(key.trim_start_matches("extra-"), "access-tokens");
    if is_secret {
        Err("put access tokens into a file and name it with --access-tokens-file".to_owned())
    } else if key_ok {
        Ok((key.to_owned(), value.to_owned()))
    } else {
        Err(format!("{key:?} is not the name of a Nix setting"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_policy_that_is_required_has_a_place() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["nix-csi", "node"], args].concat());
        let error = parse(&["--policy-required"]).unwrap_err().to_string();
        assert!(
            error.contains("--policy-config-map") && error.contains("--policy-file"),
            "{error}"
        );
        parse(&["--policy-required", "--policy-file", "/policy.yaml"]).unwrap();
        let node = ["--policy-config-map", "nix-csi/policy", "--node-name", "n"];
        parse(&[&["--policy-required"], &node[..]].concat()).unwrap();
    }

    #[test]
    fn a_nix_option_is_a_setting_and_a_value() {
        assert_eq!(key_value("sandbox=false").unwrap(), ("sandbox".into(), "false".into()));
        assert_eq!(key_value("a=b=c").unwrap().1, "b=c");
        assert!(key_value("sandbox").is_err());
        assert!(key_value("A B=x").is_err());
    }

    #[test]
    fn a_signing_key_is_public_and_has_a_name() {
        let key = "nodes-1:YHcpOLHUhaBLqc+IDGAIFUBFZwbNWXpvBnuZcFkKTTo=";
        assert_eq!(signing_public_key(&format!("{key}\n")).unwrap(), key);
        let secret = format!("nodes-1:{}{}", "A".repeat(86), "==");
        for bad in ["", "nodes-1", "nodes-1:", ":AAAA", "nodes-1:AAAA", &secret] {
            let error = signing_public_key(bad).unwrap_err();
            assert!(error.starts_with("write NAME:KEY") && !error.contains("AAAA"), "{error}");
        }
    }
}
