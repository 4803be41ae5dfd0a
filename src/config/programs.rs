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
    #[arg(long, env = "PATH", hide_env_values = true, value_name = "DIRS", default_value = "/usr/local/bin:/usr/bin:/bin", value_parser = OsStringValueParser::new().try_map(|dirs| resolved(&dirs)))]
    pub search_path: OsString,
}

/// The absolute directories without links, each once. What is not absolute would be another directory for each process;
/// a jail has no links of ours, and `/nix/var/result` may lead to the next image's programs while we still run. Those that
/// are not there stay as they are.
fn resolved(dirs: &OsStr) -> Result<OsString, String> {
    let absolute: Vec<_> = std::env::split_paths(dirs).filter(|dir| dir.is_absolute()).collect();
    if absolute.is_empty() {
        return Err(
            "it names no absolute directory: write for example /usr/local/bin:/usr/bin:/bin"
                .to_owned(),
        );
    }
    let mut all = Vec::new();
    for dir in &absolute {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        if !all.contains(&dir) {
            all.push(dir);
        }
    }
    // A directory may have a colon in its real name.
    let joined = std::env::join_paths(all).or_else(|_| std::env::join_paths(absolute));
    joined.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_directories_count() {
        let of = |text: &str| resolved(text.as_ref()).map(|path| path.into_string().unwrap());
        assert_eq!(of("/a/bin:.::bin:/b").unwrap(), "/a/bin:/b");
        assert!(of("").is_err() && of("bin:.").is_err());
    }

    #[test]
    fn a_search_path_has_no_links_and_stays_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let [old, new, link] = ["old", "new", "link"].map(|name| real.join(name));
        std::fs::create_dir(&old).unwrap();
        std::os::unix::fs::symlink(&old, &link).unwrap();
        let named = std::env::join_paths([&link, &new, &old]).unwrap();
        assert_eq!(resolved(&named).unwrap(), std::env::join_paths([&old, &new]).unwrap());
        let odd = real.join("a:b");
        std::fs::create_dir(&odd).unwrap();
        std::os::unix::fs::symlink(&odd, real.join("odd")).unwrap();
        let named = real.join("odd").into_os_string();
        assert_eq!(resolved(&named).unwrap(), named);
    }
}
