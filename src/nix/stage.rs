//! Roots that a command makes: in a directory of their own first, since Nix names its links.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::StorePath;

use super::NixError;
use super::error::io_error;
use super::gc_lock::staging_name;
use super::real::Inner;

/// The directory that one command makes its links in, gone when it is dropped. It lies among the
/// roots, so its links are roots directly. The indirect ones that Nix also makes, named by a hash
/// in `gcroots/auto`, then lead nowhere; the next collection removes them.
pub(super) struct Staging(PathBuf);

impl Staging {
    pub(super) fn new(root: &Path) -> Result<Self, NixError> {
        let dir = staging_name(root);
        fs::create_dir(&dir).map_err(|err| io_error("create", &dir, err))?;
        Ok(Self(dir))
    }

    pub(super) fn link(&self) -> PathBuf {
        self.0.join("result")
    }

    /// Where the one link leads that the command has made; outputs other than `out` have their
    /// names in the link's.
    pub(super) fn target(&self) -> Result<StorePath, NixError> {
        let list = |err| io_error("list", &self.0, err);
        let entry = fs::read_dir(&self.0).map_err(list)?.next().transpose().map_err(list)?;
        let odd = |detail: String| NixError::Command { what: "nix-store --realise".into(), detail };
        let link = entry.ok_or_else(|| odd("it made no root".to_owned()))?.path();
        let target = fs::read_link(&link).map_err(|err| io_error("read", &link, err))?;
        StorePath::parse(&target.to_string_lossy()).map_err(|err| odd(err.to_string()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %err, "can't remove a staging directory");
        }
    }
}

/// Places `root` on a blocking thread; whether the path was valid. `kept`, such as a stage that
/// holds the path until then, is dropped afterwards. Nothing stays when the future is dropped.
pub(super) async fn place<K: Send + 'static>(
    nix: Arc<Inner>,
    path: StorePath,
    root: PathBuf,
    kept: K,
) -> Result<bool, NixError> {
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let still_wanted = wanted.0.clone();
    let blocking = tokio::task::spawn_blocking(move || {
        let placed = nix.place(&path, &root)?;
        if !still_wanted.load(Ordering::Acquire) {
            // Cancelled meanwhile; who cancelled may already have looked for the root.
            let _ = fs::remove_file(&root);
        }
        drop(kept);
        Ok(placed)
    });
    blocking.await.unwrap_or_else(|panic| Err(NixError::panicked("placing a root", &panic)))
}

/// Turns false when its future is dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
