//! The links of an environment: a GC root, one of the environment before it, and what `PATH` goes by.
//!
//! The former environment stays until the next but one comes: a driver of the former image may run on until its
//! pod has ended, and no collector in another pid namespace sees what it has open.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::error::BootstrapError as Error;
use super::place::Place;
use crate::crash::crash_point;
use crate::model::StorePath;
use crate::nix::NixError;
use crate::nix::error::io_error;
use crate::nix::gc_lock::{GcLock, staging_name, sweep_staging};

/// In the destination's state directory.
const ROOTS: &str = "gcroots/nix-csi/bootstrap";
/// In a `/nix`; `PATH` has its `bin`.
const RESULT: &str = "var/result";

pub(super) struct Links {
    roots: PathBuf,
    current: PathBuf,
    previous: PathBuf,
    result: PathBuf,
}

/// Where an image's own link leads.
pub(super) fn environment_of(from: &Path) -> Result<StorePath, Error> {
    let link = from.join(RESULT);
    let target = fs::read_link(&link)
        .map_err(|source| Error::NoEnvironment { link: link.clone(), source })?;
    StorePath::parse(&target.to_string_lossy())
        .map_err(|source| Error::OddEnvironment { link, source })
}

impl Links {
    pub(super) fn of(place: &Place) -> Self {
        let roots = place.state_dir.join(ROOTS);
        let [current, previous] = ["current", "previous"].map(|name| roots.join(name));
        Self { roots, current, previous, result: place.dir.join(RESULT) }
    }

    pub(super) fn all_lead_to(&self, environment: &StorePath) -> bool {
        let environment = PathBuf::from(environment.to_string());
        let leads = |link| fs::read_link(link).is_ok_and(|target| target == environment);
        leads(&self.current) && leads(&self.result)
    }

    /// Their directory, without what a killed one left half made.
    pub(super) fn make(&self) -> Result<(), NixError> {
        fs::create_dir_all(&self.roots).map_err(|err| io_error("create", &self.roots, err))?;
        sweep_staging(&self.roots).map(drop)
    }

    /// The former environment is the one that is in use: a killed bootstrap may have placed a root for another.
    pub(super) fn lead_to(
        &self,
        environment: &StorePath,
        place: &Place,
        gc: &GcLock,
    ) -> Result<(), Error> {
        let root = |path: &StorePath, root: &Path| gc.place(path, root, || place.is_valid(path));
        if let Some(former) = self.in_use()?.filter(|former| former != environment) {
            root(&former, &self.previous)?;
        }
        crash_point("bootstrap-previous-kept");
        if !root(environment, &self.current)? {
            return Err(NixError::NotValid { path: environment.clone() }.into());
        }
        crash_point("bootstrap-rooted");
        Ok(self.show(environment)?)
    }

    /// `None`: nothing, or what is nobody's environment.
    fn in_use(&self) -> Result<Option<StorePath>, NixError> {
        match fs::read_link(&self.result) {
            Ok(target) => Ok(StorePath::parse(&target.to_string_lossy()).ok()),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(io_error("read the link", &self.result, err)),
        }
    }

    fn show(&self, environment: &StorePath) -> Result<(), NixError> {
        // Among the roots, where the next run sweeps.
        let staged = staging_name(&self.roots.join("result"));
        symlink(environment.to_string(), &staged)
            .map_err(|err| io_error("create", &staged, err))?;
        crash_point("bootstrap-link-staged");
        fs::rename(&staged, &self.result).map_err(|err| io_error("replace", &self.result, err))?;
        crash_point("bootstrap-linked");
        Ok(())
    }
}
