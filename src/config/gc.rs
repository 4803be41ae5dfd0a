//! Settings of `nix-csi gc`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Output, Programs};
use crate::actors::gc::water::Watermarks;
use crate::grpc::Endpoint;
use crate::model::StorePath;

/// Of an interval, and of a time limit.
const LEAST: Duration = Duration::from_millis(100);

/// Of a node and of a cache.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Garbage collection")]
pub struct GcSettings {
    /// What nothing holds and was not used for so long goes; 1h on a node, 24h on a cache. With
    /// --nix-daemon-socket nothing is collected unless this is given.
    #[arg(long, env = "NIX_CSI_GC_OLDER_THAN", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub gc_older_than: Option<Duration>,
    /// Between two collections, about; there is one at the start.
    #[arg(long, env = "NIX_CSI_GC_INTERVAL", value_parser = some_time, default_value = "15m", value_name = "TIME")]
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
    #[arg(long, env = "NIX_CSI_GC_LOOK_INTERVAL", value_parser = some_time, default_value = "10s", value_name = "TIME")]
    pub gc_look_interval: Duration,
    /// Longest time of one step of a collection, such as one of its deletions.
    #[arg(long, env = "NIX_CSI_GC_STEP_TIMEOUT", value_parser = some_time, default_value = "10m", value_name = "TIME")]
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
pub struct GcArgs {
    /// List what would go and what it would free, oldest use first. Changes nothing.
    #[arg(long, conflicts_with = "explain")]
    pub dry_run: bool,
    /// Say why a path stays, or when it would go. Changes nothing.
    #[arg(long, value_parser = super::store_path, value_name = "PATH")]
    pub explain: Option<StorePath>,
    /// What nothing holds and was not used for so long goes.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1h", value_name = "TIME")]
    pub older_than: Duration,
    /// What came or was used within this time stays in any case.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub grace: Option<Duration>,
    /// Counts who reads a path as a user, as far as the file system notes it: as a cache does.
    #[arg(long)]
    pub atime: bool,
    /// Where a node or a cache, running or not, notes when paths were used. Without one, paths are as
    /// old as their registration.
    #[arg(long, env = "NIX_CSI_STATE_DIR", value_parser = super::absolute, default_value = super::DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Admin socket of a node that may run: it knows the volumes of its views.
    #[arg(long, env = "NIX_CSI_ADMIN_ENDPOINT", default_value = "unix:///run/nix-csi/admin.sock")]
    pub admin_endpoint: Endpoint,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub programs: Programs,
}

fn some_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < LEAST { Err("write 100ms or more".to_owned()) } else { Ok(time) }
}
