//! Where programs are found.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

#[derive(Debug, Clone, Args)]
pub struct Programs {
    /// The nix program.
    #[arg(long, env = "NIX_CSI_NIX", default_value = "nix")]
    pub nix: PathBuf,
    /// Directories of programs, separated by `:`: Nix, git, ssh, ssh-keygen, cat, mkfs.ext4, and what Nix starts
    /// itself. Links are followed once, at the start; what is not absolute does not count.
    #[arg(long, env = "PATH", hide_env_values = true, value_name = "DIRS", default_value = "/usr/local/bin:/usr/bin:/bin", value_parser = OsStringValueParser::new().try_map(|dirs| absolute_ones(&dirs)))]
    pub search_path: OsString,
}

/// What is not absolute would be another directory for each process.
fn absolute_ones(dirs: &OsStr) -> Result<OsString, String> {
    let absolute: Vec<_> = std::env::split_paths(dirs).filter(|dir| dir.is_absolute()).collect();
    if absolute.is_empty() {
        return Err(
            "it names no absolute directory: write for example /usr/local/bin:/usr/bin:/bin"
                .to_owned(),
        );
    }
    std::env::join_paths(absolute).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_directories_count() {
        let of = |text: &str| absolute_ones(text.as_ref()).map(|path| path.into_string().unwrap());
        assert_eq!(of("/a/bin:.::bin:/b").unwrap(), "/a/bin:/b");
        assert!(of("").is_err() && of("bin:.").is_err());
    }
}
