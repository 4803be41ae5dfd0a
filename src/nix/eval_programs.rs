//! Programs that an evaluator starts, as far as they are in the node's store themselves: they are shown to those
//! who see no other path of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::lock::lock;
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
    links: BTreeSet<StorePath>,
    /// They, and all that they need.
    pub(super) closure: Vec<StorePath>,
    /// Where they are, since a profile's links are not shown.
    pub(super) dirs: Vec<PathBuf>,
}

/// Blocking.
pub(super) fn find(nix: &Inner) -> Result<Arc<Found>, NixError> {
    let config = &nix.config;
    let names = PROGRAMS.iter().map(Path::new).chain([&*config.program]);
    let found = names.map(|name| process::find(name, &config.search_path));
    let found: Vec<_> = found.filter_map(|path| Some((path.canonicalize().ok()?, path))).collect();
    let of_store = |path: &Path| Some((path.parent()?.to_owned(), top_of(path.to_str()?)?));
    let (mut dirs, tops): (BTreeSet<_>, BTreeSet<_>) =
        found.iter().filter_map(|(real, _)| of_store(real)).unzip();
    // A program of a profile is a link to where it really is. What else the profile has is nobody's to see.
    let (of_profiles, links): (Vec<_>, BTreeSet<_>) =
        found.iter().filter_map(|(_, named)| of_store(named)).unzip();
    dirs.extend(of_profiles);
    let mut last = lock(&nix.programs.0);
    if (&last.tops, &last.links) != (&tops, &links) {
        let mut closure = nix.closures(&tops.iter().cloned().collect::<Vec<_>>())?;
        closure.extend(links.iter().cloned());
        let (closure, dirs) = (closure.into_iter().collect(), dirs.into_iter().collect());
        *last = Arc::new(Found { tops, links, closure, dirs });
    }
    Ok(last.clone())
}
