//! Settings of the policy, and of `nix-csi policy`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Output;
use crate::grpc::Endpoint;

/// Where the policy is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policy")]
#[command(group = ArgGroup::new("policy").args(["policy_config_map", "policy_file"]).multiple(true))]
pub struct PolicySettings {
    /// ConfigMap whose key policy.yaml says what each namespace may ask for; it is watched. Without one pods
    /// may ask for everything.
    #[arg(long, env = "NIX_CSI_POLICY_CONFIG_MAP", value_parser = config_map, value_name = "NAMESPACE/NAME", requires = "node_name")]
    pub policy_config_map: Option<(String, String)>,
    /// The same in a file, which is followed.
    #[arg(long, env = "NIX_CSI_POLICY_FILE", value_parser = super::absolute, conflicts_with = "policy_config_map", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    /// Where there is none, and never was, pods may ask for nothing, instead of everything.
    #[arg(long, env = "NIX_CSI_POLICY_REQUIRED", requires_if("true", "policy"))]
    pub policy_required: bool,
}

impl PolicySettings {
    pub fn is_set(&self) -> bool {
        self.policy_config_map.is_some() || self.policy_file.is_some()
    }
}

fn config_map(text: &str) -> Result<(String, String), String> {
    let is_name = |name: &str| {
        let is_of_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
        !name.is_empty() && name.len() <= 253 && name.bytes().all(is_of_name)
    };
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write NAMESPACE/NAME of a ConfigMap".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say what a namespace may ask for, and of a volume whether it may and why not.
    Explain(ExplainArgs),
    /// Say whether a file has a policy that can be used.
    Check {
        /// The policy, as YAML.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Whose volume it would be.
    #[arg(long, value_parser = super::not_empty)]
    pub namespace: String,
    /// The volume's flakeRef.
    #[arg(long, conflicts_with_all = ["store_path", "expr"])]
    pub flake_ref: Option<String>,
    /// The volume's storePath.
    #[arg(long, conflicts_with = "expr")]
    pub store_path: Option<String>,
    /// The volume's nixExpr.
    #[arg(long)]
    pub expr: Option<String>,
    /// It is writable.
    #[arg(long)]
    pub rw: bool,
    /// Its size.
    #[arg(long, requires = "rw")]
    pub size: Option<String>,
    /// A policy to be tried, instead of the node's.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// The node's admin socket.
    #[arg(long, env = "NIX_CSI_ADMIN_ENDPOINT", default_value = "unix:///run/nix-csi/admin.sock")]
    pub admin_endpoint: Endpoint,
}
