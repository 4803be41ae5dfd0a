//! Settings of `nix-csi gc`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::Output;
use crate::model::StorePath;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["dry_run", "explain"])))]
pub struct GcArgs {
    /// List what would go: paths that nothing holds, oldest use first.
    #[arg(long)]
    pub dry_run: bool,
    /// Say why a path stays, or since when nothing holds it.
    #[arg(long, value_parser = store_path, value_name = "PATH")]
    pub explain: Option<StorePath>,
    /// What was used later than this stays.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1h")]
    pub older_than: Duration,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// The nix program.
    #[arg(long, env = "NIX_CSI_NIX", default_value = "nix")]
    pub nix: PathBuf,
}

fn store_path(text: &str) -> Result<StorePath, String> {
    StorePath::parse(text).map_err(|error| error.to_string())
}
