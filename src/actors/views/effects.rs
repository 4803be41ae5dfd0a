//! What the views actor does on blocking threads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{RwLock, Semaphore};

use super::ViewsConfig;
use crate::actors::core;
use crate::actors::gc::report::{Leaked, remove_leaked};
use crate::actors::gc::used::Used;
use crate::actors::volume::ViewError;
use crate::model::StorePath;
use crate::mount::{MountCount, Mounts, View, ViewId};
use crate::nix::{Nix, NixError, sweep_staging};
use crate::trace;

/// Views being made at once: each is bound by one disk.
const MAKERS: usize = 4;

/// A view, and its paths that were replaced.
pub(super) type Replaced = (ViewId, Result<Vec<StorePath>, ViewError>);

/// The rooms that effects use; cheap to clone.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) nix: Arc<dyn Nix>,
    pub(super) mounts: Arc<dyn Mounts>,
    /// GC roots of views, one symlink each.
    pub(super) roots: PathBuf,
    used: Used,
    makers: Arc<Semaphore>,
    /// Held shared by every effect, and alone by a recovery, which must not meet the effects of the
    /// incarnation before it.
    busy: Arc<RwLock<()>>,
}

impl Hands {
    pub(super) fn new(nix: Arc<dyn Nix>, mounts: Arc<dyn Mounts>, config: &ViewsConfig) -> Self {
        let (roots, used) = (config.roots.clone(), config.used.clone());
        let makers = Arc::new(Semaphore::new(MAKERS));
        Self { nix, mounts, roots, used, makers, busy: Arc::default() }
    }

    fn root_link(&self, id: &ViewId) -> PathBuf {
        self.roots.join(id.as_str())
    }

    /// Roots, then checks, then makes. `None`: the path is not valid in the store.
    pub(super) async fn make(self, id: ViewId, root: StorePath) -> Result<Option<View>, ViewError> {
        let permit = self.makers.clone().acquire_owned().await;
        let busy = self.busy.clone().read_owned().await;
        let made = blocking(move || {
            let _held = (permit, busy);
            self.make_now(&id, &root)
        });
        trace::phase(trace::below!("make view"), made).await
    }

    fn make_now(&self, id: &ViewId, root: &StorePath) -> Result<Option<View>, ViewError> {
        let link = self.root_link(id);
        if !self.nix.root_if_valid(root, &link)? {
            return Ok(None);
        }
        let made = self.nix.closure(root).map_err(ViewError::from).and_then(|closure| {
            let database = |dir: &Path| self.nix.write_database(&closure, dir);
            Ok(self.mounts.create_view(id, &closure, &database)?)
        });
        if made.is_err() {
            self.undo(id);
        }
        made.map(Some)
    }

    /// The error that led here is what the caller hears; a failed undo is repaired at next start.
    fn undo(&self, id: &ViewId) {
        if let Err(error) = self.remove_now(id) {
            tracing::warn!(view = id.as_str(), %error, "can't remove a half-made view");
        }
    }

    pub(super) async fn remove(self, id: ViewId) -> Result<(), ViewError> {
        let busy = self.busy.clone().read_owned().await;
        blocking(move || {
            let _held = busy;
            self.remove_now(&id)
        })
        .await
    }

    /// The root goes last: what still shows the view keeps its paths. After it, there is only what was noted.
    fn remove_now(&self, id: &ViewId) -> Result<(), ViewError> {
        self.mounts.remove_view(id)?;
        self.used.flush();
        remove_link(&self.root_link(id))?;
        Ok(())
    }

    /// One after the other: publishes need the blocking threads more.
    pub(super) async fn replaced(self, ids: Vec<ViewId>) -> Vec<Replaced> {
        let look = move || {
            let one = |id: ViewId| {
                let found = self.mounts.replaced_paths(&id).map_err(ViewError::from);
                (id, found)
            };
            Ok(ids.into_iter().map(one).collect())
        };
        blocking(look).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "can't verify the views");
            Vec::new()
        })
    }

    /// Takes over what an earlier process left: complete views of this boot, rooted again in case;
    /// everything else of ours goes, unless a mount still shows it. With each view, its paths that
    /// were replaced.
    pub(super) async fn recover(self) -> Result<Vec<(View, Vec<StorePath>)>, ViewError> {
        let alone = self.busy.clone().write_owned().await;
        blocking(move || {
            let _held = alone;
            fs::create_dir_all(&self.roots).map_err(|source| NixError::Io {
                verb: "make the directory of GC roots",
                path: self.roots.clone(),
                source,
            })?;
            sweep_staging(&self.roots)?;
            let ids = self.mounts.list_views()?;
            let views = ids.iter().filter_map(|id| self.reopen(id)).collect();
            self.sweep_roots()?;
            Ok(views)
        })
        .await
    }

    fn reopen(&self, id: &ViewId) -> Option<(View, Vec<StorePath>)> {
        let reopened = self.mounts.reopen_view(id).map_err(ViewError::from).and_then(|found| {
            let Some(view) = found else {
                // Its volumes may come back: a machine has just started.
                if let Some(root) = target(&self.root_link(id)) {
                    self.used.note(&root);
                }
                self.remove_now(id)?;
                return Ok(None);
            };
            // A complete view was rooted before it was made. So nothing is to be asked of the store,
            // which may be busy: a view that is not taken over is no longer its volumes'.
            let link = self.root_link(id);
            let rooted =
                fs::read_link(&link).is_ok_and(|to| to == Path::new(&view.root.to_string()));
            if rooted || self.nix.root_if_valid(&view.root, &link)? {
                let replaced = self.mounts.replaced_paths(id).unwrap_or_else(|error| {
                    tracing::warn!(view = id.as_str(), %error, "can't verify a view");
                    Vec::new()
                });
                return Ok(Some((view, replaced)));
            }
            // Its paths are gone, so nobody can use it; a mount that shows it says so loudly.
            self.remove_now(id)?;
            Ok(None)
        });
        reopened.unwrap_or_else(|error| {
            tracing::error!(view = id.as_str(), %error, "a view was left as it is");
            None
        })
    }

    /// Removes roots of ours that belong to no view directory.
    fn sweep_roots(&self) -> Result<(), ViewError> {
        for id in self.list_without_directory()? {
            remove_link(&self.root_link(&id))?;
        }
        Ok(())
    }

    fn list_without_directory(&self) -> Result<Vec<ViewId>, ViewError> {
        let failed = |source| NixError::Io { verb: "list", path: self.roots.clone(), source };
        let mut rooted = Vec::new();
        for entry in fs::read_dir(&self.roots).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            rooted.extend(ViewId::parse(&name.to_string_lossy()));
        }
        let known = self.mounts.list_views()?;
        rooted.retain(|id| !known.contains(id));
        Ok(rooted)
    }

    pub(super) async fn count_mounts(self) -> Result<MountCount, ViewError> {
        blocking(move || Ok(self.mounts.count()?)).await
    }

    /// Views of which there is a root, and no directory.
    pub(super) async fn without_directory(self) -> Vec<ViewId> {
        blocking(move || self.list_without_directory()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "can't look for leaked roots of views");
            Vec::new()
        })
    }

    pub(super) async fn remove_roots(self, of: Vec<ViewId>) -> Vec<Leaked> {
        let remove = move || {
            let links = of.iter().map(|id| self.root_link(id));
            Ok(links.filter_map(remove_leaked).collect())
        };
        blocking(remove).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "can't remove leaked roots of views");
            Vec::new()
        })
    }
}

fn target(link: &Path) -> Option<StorePath> {
    StorePath::parse(&fs::read_link(link).ok()?.to_string_lossy()).ok()
}

fn remove_link(link: &Path) -> Result<(), NixError> {
    match fs::remove_file(link) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NixError::Io { verb: "remove the GC root", path: link.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Runs on a blocking thread; a panic there becomes an error of this one call.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
) -> Result<T, ViewError> {
    core::blocking(work).await.unwrap_or_else(|panic| Err(ViewError::panicked("a view", &panic)))
}
