//! Settings of `nix-csi cache`.

use std::path::PathBuf;

use clap::Args;

use super::{BuilderSettings, GcSettings, ProcessSettings, SshdSettings};
use crate::grpc::Endpoint;

/// Where the cache's sshd listens.
pub const SSH_LISTEN: &str = "0.0.0.0:22";

#[derive(Debug, Clone, Args)]
pub struct CacheConfig {
    #[command(flatten)]
    pub process: ProcessSettings,
    #[command(flatten)]
    pub sshd: SshdSettings,
    #[command(flatten)]
    pub builders: BuilderSettings,
    #[command(flatten)]
    pub gc: GcSettings,
    /// Socket for `nix-csi debug bundle`, mode 0600; admin.sock in --run-dir if it is not set.
    #[arg(long, env = "NIX_CSI_ADMIN_ENDPOINT")]
    pub admin_endpoint: Option<Endpoint>,
    /// Public key whose signature lets a path in, `name:base64`; repeat it for several.
    #[arg(long, env = "NIX_CSI_TRUSTED_PUBLIC_KEYS", value_delimiter = ' ', value_parser = super::signing_public_key, value_name = "KEY")]
    pub trusted_public_key: Vec<String>,
    /// Builds at once on the cache itself, beside those on its builders.
    #[arg(long, env = "NIX_CSI_LOCAL_JOBS", default_value = "0")]
    pub local_jobs: u16,
    /// Clients' sessions at once; one more is told to come again. Each takes about 5 MB.
    #[arg(long, env = "NIX_CSI_MAX_SESSIONS", default_value = "500", value_parser = positive)]
    pub max_sessions: usize,
    /// Sessions at once of one key, so that others get in whatever somebody does with it; four fifths of
    /// --max-sessions if it is not set.
    #[arg(long, env = "NIX_CSI_MAX_SESSIONS_PER_KEY", value_parser = positive)]
    pub max_sessions_per_key: Option<usize>,
    /// Sessions that may send or get much at once; the others are slow until it is their turn.
    #[arg(long, env = "NIX_CSI_MAX_TRANSFERS", default_value = "16", value_parser = positive)]
    pub max_transfers: usize,
    /// Private key with which the cache signs what it builds itself.
    #[arg(long, env = "NIX_CSI_SIGNING_KEY", value_parser = super::absolute, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
}

impl CacheConfig {
    pub fn admin_endpoint(&self) -> Endpoint {
        let own = || self.process.run_dir.join("admin.sock").into();
        self.admin_endpoint.clone().unwrap_or_else(own)
    }

    /// What one key may have of the sessions.
    pub fn sessions_per_key(&self) -> usize {
        self.max_sessions_per_key.unwrap_or((self.max_sessions * 4 / 5).max(1))
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<u16>() {
        Ok(0) => Err("it must be 1 or more".to_owned()),
        Ok(number) => Ok(number.into()),
        Err(error) => Err(error.to_string()),
    }
}
