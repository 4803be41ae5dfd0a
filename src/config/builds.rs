//! Settings of evaluations, fetches and builds.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};

use super::{Output, Sockets};
use crate::model::MIN_EVALUATION_MEMORY;
use crate::nix::EvalMode;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evaluations, fetches and builds")]
pub struct BuildSettings {
    /// How free an expression (nixExpr) is; flakes are always pure. All run in a jail.
    #[arg(long, env = "NIX_CSI_EVAL_MODE", value_enum, default_value = "restricted")]
    pub eval_mode: EvalModeArg,
    /// Lets evaluations build what they import (import-from-derivation); they then need a build slot.
    #[arg(long, env = "NIX_CSI_ALLOW_IMPORT_FROM_DERIVATION")]
    pub allow_import_from_derivation: bool,
    /// An entry of NIX_PATH, such as nixpkgs=/nix/store/…; repeat it for several.
    #[arg(long, env = "NIX_CSI_NIX_PATH", value_delimiter = '\n', value_name = "NAME=PLACE")]
    pub nix_path: Vec<String>,
    /// Prefix of what a restricted expression may fetch; repeat it for several.
    #[arg(long, env = "NIX_CSI_ALLOWED_URIS", value_delimiter = '\n', value_name = "PREFIX")]
    pub allowed_uri: Vec<String>,
    /// File with access tokens for fetchers, `github.com=…` pairs; read for each evaluation.
    #[arg(long, env = "NIX_CSI_ACCESS_TOKENS_FILE", value_parser = super::absolute)]
    pub access_tokens_file: Option<PathBuf>,
    /// Program that exchanges a pod's service-account tokens for access tokens or a netrc.
    #[arg(long, env = "NIX_CSI_TOKEN_EXCHANGE", value_parser = super::absolute, value_name = "PROGRAM")]
    pub token_exchange: Option<PathBuf>,
    /// Directory of the node that evaluations may read; repeat it for several.
    #[arg(long, env = "NIX_CSI_EVAL_PATHS", value_delimiter = ':', value_parser = super::absolute)]
    pub eval_path: Vec<PathBuf>,
    /// Lets pods name flakes by path:, file: and registry names.
    #[arg(long, env = "NIX_CSI_ALLOW_LOCAL_FLAKES")]
    pub allow_local_flakes: bool,
    /// User and group of evaluations; no account is needed.
    #[arg(long, env = "NIX_CSI_EVAL_UID", default_value = "30999", value_parser = clap::value_parser!(u32).range(1..))]
    pub eval_uid: u32,
    /// Memory of one evaluation.
    #[arg(long, env = "NIX_CSI_EVAL_MEMORY", default_value = "4GiB", value_parser = memory)]
    pub eval_memory: ByteSize,
    /// Disk of all evaluations of one namespace: what they fetch and make outside of the node's store; none is no limit.
    #[arg(long, env = "NIX_CSI_EVAL_DISK", default_value = "8GiB", value_parser = disk)]
    pub eval_disk: ByteSize,
    /// Longest time of one evaluation, with the sources that it fetches; 0s is no limit.
    #[arg(long, env = "NIX_CSI_EVAL_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10m")]
    pub eval_timeout: Duration,
    /// Longest time of all fetches and builds of one volume's closure; 0s is no limit.
    #[arg(long, env = "NIX_CSI_REALISE_TIMEOUT", value_parser = humantime::parse_duration, default_value = "2h")]
    pub realise_timeout: Duration,
    /// Longest time of the build of one derivation; 0s is no limit.
    #[arg(long, env = "NIX_CSI_BUILD_TIMEOUT", value_parser = humantime::parse_duration, default_value = "0s")]
    pub build_timeout: Duration,
    /// Longest time that a build may print nothing; 0s is no limit.
    #[arg(long, env = "NIX_CSI_MAX_SILENT_TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    pub max_silent_time: Duration,
    /// Evaluations at once; the rest queues, fair between namespaces.
    #[arg(long, env = "NIX_CSI_EVAL_SLOTS", default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    pub eval_slots: u16,
    /// Fetches and builds at once; the rest queues, fair between namespaces.
    #[arg(long, env = "NIX_CSI_BUILD_SLOTS", default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    pub build_slots: u16,
    /// Volumes of one namespace that may wait for their closures; one more is answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "NIX_CSI_MAX_WAITING", default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_waiting: u32,
    /// How long a mutable flake reference keeps its meaning, and an expression its result.
    #[arg(long, env = "NIX_CSI_REFRESH_AFTER", value_parser = humantime::parse_duration, default_value = "60s")]
    pub refresh_after: Duration,
    /// How long a request that failed is not tried again; doubles each time.
    #[arg(long, env = "NIX_CSI_FAILURE_BACKOFF", value_parser = humantime::parse_duration, default_value = "10s")]
    pub failure_backoff: Duration,
    /// The longest that the failure's wait becomes.
    #[arg(long, env = "NIX_CSI_FAILURE_BACKOFF_MAX", value_parser = humantime::parse_duration, default_value = "5m")]
    pub failure_backoff_max: Duration,
    /// How long a build goes on that no volume waits for.
    #[arg(long, env = "NIX_CSI_CANCEL_GRACE", value_parser = humantime::parse_duration, default_value = "10s")]
    pub cancel_grace: Duration,
    /// How long a volume is prepared after the last call that asked for it.
    #[arg(long, env = "NIX_CSI_ABANDON_AFTER", value_parser = humantime::parse_duration, default_value = "10m")]
    pub abandon_after: Duration,
    /// A substituter; repeat it for several. Without it, those of Nix's own settings.
    #[arg(long, env = "NIX_CSI_SUBSTITUTERS", value_delimiter = ' ', value_name = "URL")]
    pub substituter: Vec<String>,
    /// How long a substituter may take to answer before it is left out.
    #[arg(long, env = "NIX_CSI_PROBE_TIMEOUT", value_parser = humantime::parse_duration, default_value = "5s")]
    pub probe_timeout: Duration,
    /// How long a store over ssh may send nothing before it is left out; 0s is no limit.
    #[arg(long, env = "NIX_CSI_STALL_TIMEOUT", value_parser = humantime::parse_duration, default_value = "60s")]
    pub stall_timeout: Duration,
    /// How long it is remembered whether a substituter answers.
    #[arg(long, env = "NIX_CSI_PROBE_MEMORY", value_parser = humantime::parse_duration, default_value = "30s")]
    pub probe_memory: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvalModeArg {
    Impure,
    Restricted,
    Pure,
}

impl From<EvalModeArg> for EvalMode {
    fn from(mode: EvalModeArg) -> Self {
        match mode {
            EvalModeArg::Impure => Self::Impure,
            EvalModeArg::Restricted => Self::Restricted,
            EvalModeArg::Pure => Self::Pure,
        }
    }
}

/// With less, no fetched source has room beside what Nix makes in a store of its own.
fn disk(text: &str) -> Result<ByteSize, String> {
    const LEAST: ByteSize = ByteSize::mib(64);
    if text == "none" {
        return Ok(ByteSize::b(u64::MAX));
    }
    match text.parse::<ByteSize>() {
        Ok(size) if size >= LEAST => Ok(size),
        Ok(size) => Err(format!("{size} is less than the {LEAST} that evaluations need")),
        Err(_) => Err("write a size such as 8GiB, or none".to_owned()),
    }
}

/// With less, Nix does not even start.
fn memory(text: &str) -> Result<ByteSize, String> {
    const LEAST: ByteSize = ByteSize::b(MIN_EVALUATION_MEMORY);
    match text.parse::<ByteSize>() {
        Ok(size) if size >= LEAST => Ok(size),
        Ok(size) => Err(format!("{size} is less than the {LEAST} that Nix needs")),
        Err(_) => Err("write a size such as 4GiB".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BuildsArgs {
    #[command(subcommand)]
    pub command: Option<BuildsCommand>,
    /// Stay, and show progress until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// `table` for people, `json` for programs: with --watch, an object a line for each change.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub sockets: Sockets,
}

#[derive(Debug, Subcommand)]
pub enum BuildsCommand {
    /// Try what failed again at the next call, without waiting.
    Retry(RetryArgs),
}

#[derive(Debug, Args)]
pub struct RetryArgs {
    /// Numbers that `nix-csi builds` shows; all failures without any.
    pub number: Vec<u64>,
    #[command(flatten)]
    pub sockets: Sockets,
}
