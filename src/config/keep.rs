//! Settings of what a node keeps warm, and of `nix-csi prefetch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{Output, Sockets};
use crate::model::SourceList;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kept warm")]
pub struct KeepSettings {
    /// A store path or a flake reference whose closure this node has before a pod asks for it, and keeps;
    /// repeat it for several, or in the environment write one a line.
    #[arg(long, env = "NIX_CSI_KEEP", value_parser = sources, value_name = "SOURCE")]
    pub keep: Vec<SourceList>,
    /// A file of such sources, one a line, such as a mounted ConfigMap. It is followed: a line that is
    /// none costs that line, and a file that can't be read changes nothing.
    #[arg(long, env = "NIX_CSI_KEEP_FILE", value_parser = super::absolute, value_name = "FILE")]
    pub keep_file: Option<PathBuf>,
    /// How often it is looked up what a kept mutable flake reference names.
    #[arg(long, env = "NIX_CSI_KEEP_REFRESH", value_parser = interval, default_value = "1h")]
    pub keep_refresh: Duration,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("sources").required(true).multiple(true).args(["source", "flake_ref", "store_path", "expr"])))]
pub struct PrefetchArgs {
    /// A store path, or a flake reference such as `.#hello`; a local flake is copied into the store.
    pub source: Vec<String>,
    /// A flake reference; repeat it for several.
    #[arg(long)]
    pub flake_ref: Vec<String>,
    /// A store path; repeat it for several.
    #[arg(long)]
    pub store_path: Vec<String>,
    /// The text of a Nix expression; repeat it for several.
    #[arg(long)]
    pub expr: Vec<String>,
    /// The node holds it for so long, also over its restarts; without it, as any view without volumes.
    #[arg(long, value_parser = interval, value_name = "DURATION")]
    pub keep: Option<Duration>,
    /// Let go of what --keep holds, by its source or its store path.
    #[arg(long, conflicts_with = "keep")]
    pub drop: bool,
    /// `table` for people, `json` for programs: an object a line for each source.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// The nix program, which copies a local flake into the store.
    #[arg(long, env = "NIX_CSI_NIX", default_value = "nix")]
    pub nix: PathBuf,
    #[command(flatten)]
    pub sockets: Sockets,
}

fn sources(text: &str) -> Result<SourceList, String> {
    let list = SourceList::parse(text);
    if list.refused.is_empty() { Ok(list) } else { Err(list.refused.join("; ")) }
}

/// Less than a second would only turn in circles.
fn interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration >= Duration::from_secs(1) { Ok(duration) } else { Err("it is less than 1s".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;
    use crate::model::Source;

    fn parse(args: &[&str]) -> Result<Vec<String>, String> {
        let command = KeepSettings::augment_args(Command::new("node"));
        let found = command.try_get_matches_from([&["node"], args].concat());
        let found = found.map_err(|error| error.to_string())?;
        let lists = found.get_many::<SourceList>("keep").into_iter().flatten();
        Ok(lists.flat_map(|list| &list.sources).map(Source::text).collect())
    }

    #[test]
    fn a_bad_source_is_refused_with_its_line() {
        assert_eq!(parse(&["--keep", "a#x", "--keep", "# b\n\nc#y\n"]).unwrap(), ["a#x", "c#y"]);
        let error = parse(&["--keep", "a#x\n/nix/store/short\n"]).unwrap_err();
        assert!(
            error.contains("line 2: storePath: ") && error.contains("write a store"),
            "{error}"
        );
        assert!(parse(&["--keep-refresh", "0s"]).unwrap_err().contains("less than 1s"));
    }
}
