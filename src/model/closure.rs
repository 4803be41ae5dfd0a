//! What a volume holds: a root path and everything it refers to.

use super::StorePath;

/// One valid path of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    pub path: StorePath,
    /// Bytes of the path's NAR serialisation.
    pub nar_size: u64,
}

/// The closure of `root`: `paths` holds each path once, `root` included, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    pub root: StorePath,
    pub paths: Vec<PathInfo>,
}

impl Closure {
    /// Bytes of all paths' NAR serialisations.
    pub fn nar_size(&self) -> u64 {
        self.paths.iter().map(|p| p.nar_size).sum()
    }
}
