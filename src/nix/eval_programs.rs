//! Programs that an evaluator starts, as far as they are in the node's store themselves: they are shown to those
//! who see no other path of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::StorePath;

use super::eval_jail::top_of;
use super::real::Inner;
use super::{NixError, process};

const PROGRAMS: [&str; 9] = ["nix", "git", "ssh", "tar", "gzip", "xz", "bzip2", "zstd", "/bin/sh"];

/// What was found last.
#[derive(Default)]
pub(super) struct Programs(Mutex<Arc<Found>>);

#[derive(Default)]
pub(super) struct Found {
    tops: BTreeSet<StorePath>,
    /// All that they need.
    pub(super) closure: Vec<StorePath>,
    /// Where they are, since a profile's links are not shown.
    pub(super) dirs: Vec<PathBuf>,
}

/// Blocking.
pub(super) fn find(nix: &Inner) -> Result<Arc<Found>, NixError> {
    let config = &nix.config;
    let names = PROGRAMS.iter().map(Path::new).chain([&*config.program]);
    let found = names.map(|name| process::find(name, &config.search_path));
    let real: Vec<_> = found.filter_map(|path| path.canonicalize().ok()).collect();
    let of_store = real.iter().filter_map(|path| Some((path.parent()?, top_of(path.to_str()?)?)));
    let (dirs, tops): (BTreeSet<_>, BTreeSet<_>) = of_store.unzip();
    let mut last = nix.programs.0.lock().unwrap_or_else(PoisonError::into_inner);
    if last.tops != tops {
        let closure = nix.closures(&tops.iter().cloned().collect::<Vec<_>>())?;
        let dirs = dirs.into_iter().map(Path::to_owned).collect();
        *last = Arc::new(Found { tops, closure: closure.into_iter().collect(), dirs });
    }
    Ok(last.clone())
}
