//! Why a collection keeps what it keeps, counted. Pure.

use super::why::Holder;
use crate::model::{Index, StoreGraph};
use crate::nix::Root;

/// Reasons, the strongest first: a path with several counts for the first of them.
const REASONS: [&str; 7] = ["view", "build", "upload", "process", "client", "root", "recent"];
/// Nothing holds it, and it was not taken: it was used a moment ago, or there is no need.
const RECENT: usize = 6;

/// Paths by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pinned([u64; REASONS.len()]);

impl Pinned {
    /// `roots` may name what is not valid.
    pub(super) fn of(graph: &StoreGraph, roots: &[Root]) -> Self {
        let mut by_reason: [Vec<Index>; RECENT] = Default::default();
        for root in roots {
            by_reason[reason(&Holder::of(&root.name))].extend(graph.find(&root.path));
        }
        let mut seen = vec![false; graph.len()];
        let mut pinned = Self::default();
        let mut held = 0;
        for (mut todo, count) in by_reason.into_iter().zip(&mut pinned.0) {
            while let Some(path) = todo.pop() {
                if std::mem::replace(&mut seen[path as usize], true) {
                    continue;
                }
                *count += 1;
                held += 1;
                todo.extend_from_slice(graph.references(path));
            }
        }
        pinned.0[RECENT] = graph.len() as u64 - held;
        pinned
    }

    /// So many of those without a holder are gone.
    pub(super) fn deleted(&mut self, paths: usize) {
        self.0[RECENT] = self.0[RECENT].saturating_sub(paths as u64);
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.0)
    }
}

fn reason(holder: &Holder) -> usize {
    match holder {
        Holder::View(_) => 0,
        Holder::Build(_) => 1,
        Holder::Upload(_) => 2,
        Holder::Process(_) | Holder::SomeProcess => 3,
        Holder::Client(_) => 4,
        Holder::Link(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Registered, StorePath};

    fn path(n: u32) -> StorePath {
        StorePath::parse(&format!("/nix/store/{n:0>32}-p")).unwrap()
    }

    #[test]
    fn each_path_counts_once_for_the_first_of_its_reasons() {
        let paths = (0..8).map(|n| Registered { path: path(n), at: 0, nar_size: 1 }).collect();
        // 0 and 1 need 2; 3 needs 4; 5, 6 and 7 stand alone.
        let graph = StoreGraph::new(paths, vec![(0, 2), (1, 2), (3, 4)]);
        let ours = "/nix/var/nix/gcroots/nix-csi-0123456789ab";
        let root = |name: String, n| Root { name, path: path(n) };
        let roots = [
            root("/nix/var/nix/profiles/x".to_owned(), 0),
            root(format!("{ours}/views/x.1"), 1),
            root(format!("{ours}/views/y.1"), 1),
            root(format!("{ours}/builds/1"), 3),
            root("{temp:7}".to_owned(), 4),
            root("{temp:7}".to_owned(), 99),
            root("/proc/1/exe".to_owned(), 5),
        ];
        let mut pinned = Pinned::of(&graph, &roots);
        let of = |pinned: &Pinned| pinned.all().filter(|(_, n)| *n > 0).collect::<Vec<_>>();
        let held = [("view", 2), ("build", 2), ("process", 1), ("root", 1)];
        assert_eq!(of(&pinned), [&held[..], &[("recent", 2)]].concat());
        pinned.deleted(2);
        assert_eq!(of(&pinned), held);
    }
}
