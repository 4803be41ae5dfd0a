//! Settings of `nix-csi gc`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::Output;
use crate::actors::gc::water::Watermarks;
use crate::model::StorePath;

/// Of a node and of a cache.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Garbage collection")]
pub struct GcSettings {
    /// What nothing holds and was not used for so long goes; 1h on a node, 24h on a cache.
    #[arg(long, env = "NIX_CSI_GC_OLDER_THAN", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub gc_older_than: Option<Duration>,
    /// Between two collections, about; there is one at the start.
    #[arg(long, env = "NIX_CSI_GC_INTERVAL", value_parser = humantime::parse_duration, default_value = "15m", value_name = "TIME")]
    pub gc_interval: Duration,
    /// What came or was used within this time stays, however full the disk is.
    #[arg(long, env = "NIX_CSI_GC_GRACE", value_parser = humantime::parse_duration, default_value = "10m", value_name = "TIME")]
    pub gc_grace: Duration,
    /// Percent of the store's file system in use, of bytes or of inodes, above which what was used least
    /// recently goes, whatever its age; 100 is never.
    #[arg(long, env = "NIX_CSI_GC_HIGH_WATERMARK", default_value = "85", value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PERCENT")]
    pub gc_high_watermark: u8,
    /// Down to which it goes.
    #[arg(long, env = "NIX_CSI_GC_LOW_WATERMARK", default_value = "80", value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub gc_low_watermark: u8,
    /// Between two looks at how full the disk is.
    #[arg(long, env = "NIX_CSI_GC_LOOK_INTERVAL", value_parser = humantime::parse_duration, default_value = "10s", value_name = "TIME")]
    pub gc_look_interval: Duration,
    /// Longest time of one step of a collection, such as one of its deletions.
    #[arg(long, env = "NIX_CSI_GC_STEP_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10m", value_name = "TIME")]
    pub gc_step_timeout: Duration,
}

impl GcSettings {
    /// An error names the settings that don't go together.
    pub fn watermarks(&self) -> Result<Option<Watermarks>, String> {
        let (high, low) = (self.gc_high_watermark, self.gc_low_watermark);
        if low > high {
            return Err(format!(
                "--gc-low-watermark {low} is above --gc-high-watermark {high}: make it the same or less"
            ));
        }
        Ok((high < 100).then_some(Watermarks { high, low }))
    }
}

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
