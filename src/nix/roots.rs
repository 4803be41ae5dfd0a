//! Checks once, at start, that a lent daemon sees what this driver makes for it, since it may live in another mount
//! namespace. A root at a path that it can't see is pruned, and its path collected below a mounted view: that is
//! refused. Without the files of requests' secrets it fetches as nobody: that is said.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::model::StorePath;

use super::command::{Config, sibling};
use super::error::io_error;
use super::gc_lock::staging_name;
use super::{NixError, RealNix, process, secret_file};

/// Always the same bytes, so that the check never adds more than one small path to a store.
const PROBE: &str = "nix-csi checks that its garbage-collector roots are seen\n";
const PROBE_NAME: &str = "nix-csi-roots-probe";

impl RealNix {
    /// Adds a small path, makes a root for it in `roots_dir`, and another that leads there by the directory of
    /// secrets; then asks Nix for all roots.
    pub async fn roots_visible(&self, roots_dir: &Path) -> Result<(), NixError> {
        let config = self.config();
        let file = config.home.join(PROBE_NAME);
        fs::write(&file, PROBE).map_err(|err| io_error("write", &file, err))?;
        let added = run(config, &["--add".as_ref(), file.as_os_str()]).await;
        fs::remove_file(&file).map_err(|err| io_error("remove", &file, err))?;
        let path = StorePath::parse(added?.trim()).map_err(|err| NixError::Command {
            what: "nix-store --add".to_owned(),
            detail: err.to_string(),
        })?;
        fs::create_dir_all(roots_dir).map_err(|err| io_error("create", roots_dir, err))?;
        secret_file::make_dir(&config.secrets)?;
        let path = Path::new(&path.to_string()).to_owned();
        let root = Link::new(staging_name(&roots_dir.join("probe")), &path)?;
        let secret = Link::new(config.secrets.join(PROBE_NAME), &path)?;
        let _by_secrets = Link::new(staging_name(&roots_dir.join("secrets")), &secret.0)?;
        let roots = run(config, &["--gc".as_ref(), "--print-roots".as_ref()]).await?;
        if !lists(&roots, &root.0, &path) {
            return Err(NixError::Command {
                what: format!("finding a root in {}", roots_dir.display()),
                detail: "Nix does not list it, so it would collect what pods use; the directory must \
                         be one that the Nix daemon looks at, at the same path in its mount namespace"
                    .to_owned(),
            });
        }
        if !lists(&roots, &secret.0, &path) {
            tracing::warn!(
                dir = %config.secrets.display(),
                "the lent nix-daemon does not see it, so what it fetches it fetches without the netrc \
                 of a request's Secret; give --run-dir a directory that it sees at the same path"
            );
        }
        Ok(())
    }
}

/// Lines read `/nix/var/nix/gcroots/… -> /nix/store/…`, in 2.34 with the link in quotes. What a process holds open or a client
/// has just added shows as `{…} -> …` and is no proof.
fn lists(roots: &str, root: &Path, path: &Path) -> bool {
    let (root, path) = (root.display().to_string(), path.display().to_string());
    roots
        .lines()
        .filter_map(|line| line.trim().split_once(" -> "))
        .any(|(link, target)| link.trim_matches('"') == root && target == path)
}

async fn run(config: &Config, args: &[&OsStr]) -> Result<String, NixError> {
    let spec = sibling(config, "nix-store", args);
    let what = format!("nix-store {}", args[0].to_string_lossy());
    let stdout = process::output(&spec, &what).await?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

struct Link(PathBuf);

impl Link {
    fn new(link: PathBuf, to: &Path) -> Result<Self, NixError> {
        symlink(to, &link).map_err(|err| io_error("create", &link, err))?;
        Ok(Self(link))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_link_is_proof() {
        let path = Path::new("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x");
        let root = Path::new("/nix/var/nix/gcroots/n/r");
        let line = |link: &str| format!("/a -> /nix/store/b\n{link} -> {}\n", path.display());
        assert!(lists(&line("/nix/var/nix/gcroots/n/r"), root, path));
        assert!(lists(&line("\"/nix/var/nix/gcroots/n/r\""), root, path));
        for link in ["{temp:12}", "{censored}", "/nix/var/nix/gcroots/n/r2", "/proc/1/maps"] {
            assert!(!lists(&line(link), root, path), "{link}");
        }
    }
}
