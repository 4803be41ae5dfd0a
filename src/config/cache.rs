//! Settings of the cluster's cache.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{Output, Sockets};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cache")]
#[command(group = ArgGroup::new("destination").args(["cache", "upload_command"]).multiple(true))]
pub struct CacheSettings {
    /// The cluster's cache, a store URL such as ssh-ng://nix@nix-cache: a substituter, and what is
    /// realised here is uploaded to it. With ?trusted=1 it is believed without signatures, and then
    /// it decides what runs on this node.
    #[arg(long, env = "NIX_CSI_CACHE", value_parser = store_url, value_name = "URL")]
    pub cache: Option<String>,
    /// Public key whose signature lets a path in, name:base64; repeat it for several.
    #[arg(long, env = "NIX_CSI_TRUSTED_PUBLIC_KEYS", value_delimiter = ' ', value_parser = super::signing_public_key, value_name = "KEY")]
    pub trusted_public_key: Vec<String>,
    /// Where builds run: on this node, on the cache, which spreads them over its builders, or (auto)
    /// there while it can and else here.
    #[arg(long, env = "NIX_CSI_BUILD_ON", value_enum, default_value = "local", requires_ifs = [("cache", "cache"), ("auto", "cache")])]
    pub build_on: BuildOnArg,
    /// Uploads nothing.
    #[arg(long, env = "NIX_CSI_NO_UPLOAD")]
    pub no_upload: bool,
    /// A program that uploads instead of Nix: it gets the paths of whole closures on its standard
    /// input, one a line.
    #[arg(long, env = "NIX_CSI_UPLOAD_COMMAND", value_parser = super::absolute, value_name = "PROGRAM")]
    pub upload_command: Option<PathBuf>,
    /// Uploads also the derivations from which closures were built, with what they need to be built
    /// again.
    #[arg(long, env = "NIX_CSI_UPLOAD_DERIVATIONS", requires_if("true", "destination"))]
    pub upload_derivations: bool,
    /// Secret key that signs what is built here, and closures before they are uploaded.
    #[arg(long, env = "NIX_CSI_SIGNING_KEY", value_parser = super::absolute, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Longest time of one upload; 0s is no limit.
    #[arg(long, env = "NIX_CSI_UPLOAD_TIMEOUT", value_parser = humantime::parse_duration, default_value = "1h")]
    pub upload_timeout: Duration,
    /// How often the cache may refuse a closure before it waits for `nix-csi uploads retry`.
    #[arg(long, env = "NIX_CSI_UPLOAD_ATTEMPTS", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub upload_attempts: u32,
    /// Uploads at once, each of up to 64 closures.
    #[arg(long, env = "NIX_CSI_UPLOAD_SLOTS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub upload_slots: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BuildOnArg {
    Local,
    Cache,
    Auto,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct UploadsArgs {
    #[command(subcommand)]
    pub command: Option<UploadsCommand>,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub sockets: Sockets,
}

#[derive(Debug, Subcommand)]
pub enum UploadsCommand {
    /// Try uploads again now.
    Retry(RetryUploadsArgs),
}

#[derive(Debug, Args)]
pub struct RetryUploadsArgs {
    /// Store paths that `nix-csi uploads` shows; all that were given up without any.
    pub path: Vec<String>,
    #[command(flatten)]
    pub sockets: Sockets,
}

/// Nix would take a word for a directory.
fn store_url(text: &str) -> Result<String, String> {
    let is_url = text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(char::is_whitespace)
    });
    if is_url {
        Ok(text.to_owned())
    } else {
        Err("write a store URL such as ssh-ng://nix@nix-cache".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn derivations_need_somewhere_to_go() {
        let parse = |args: &[&str]| {
            let command = CacheSettings::augment_args(Command::new("node"));
            command.try_get_matches_from([&["node", "--upload-derivations"], args].concat())
        };
        assert!(parse(&[]).unwrap_err().to_string().contains("--cache"));
        parse(&["--cache", "ssh-ng://c"]).unwrap();
        parse(&["--upload-command", "/bin/up"]).unwrap();
    }

    #[test]
    fn a_cache_is_a_url_and_never_an_option() {
        for good in ["ssh-ng://nix@nix-cache", "s3://bucket?region=x", "file:///tmp/c"] {
            assert_eq!(store_url(good).unwrap(), good);
        }
        for bad in ["", "cache", "/tmp/c", "--store x://", "://x", "ssh-ng://a b"] {
            store_url(bad).unwrap_err();
        }
    }
}
