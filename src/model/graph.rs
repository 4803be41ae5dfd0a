//! What a store holds and what refers to what, as its database says at one moment. Pure.
//!
//! Compact: a store of 100,000 paths has a million references.

use std::collections::HashMap;

use super::StorePath;

/// A valid path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub path: StorePath,
    /// Seconds since 1970.
    pub at: u64,
    /// Bytes, as an archive.
    pub nar_size: u64,
}

/// The number of a path in one graph.
pub type Index = u32;

/// Valid paths and their references, but for those to themselves.
#[derive(Debug, Default)]
pub struct StoreGraph {
    paths: Vec<Registered>,
    by_path: HashMap<StorePath, Index>,
    /// Where the references of each path begin; one more than there are paths.
    first: Vec<u32>,
    references: Vec<Index>,
}

impl StoreGraph {
    /// `references` are pairs of a referrer and what it refers to, in any order.
    pub fn new(paths: Vec<Registered>, mut references: Vec<(Index, Index)>) -> Self {
        references.retain(|(from, to)| from != to);
        references.sort_unstable();
        let mut first = vec![0; paths.len() + 1];
        for (from, _) in &references {
            first[*from as usize + 1] += 1;
        }
        for n in 1..first.len() {
            first[n] += first[n - 1];
        }
        let by_path = paths.iter().zip(0..).map(|(path, n)| (path.path.clone(), n)).collect();
        Self {
            paths,
            by_path,
            first,
            references: references.into_iter().map(|(_, to)| to).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub fn indices(&self) -> impl Iterator<Item = Index> + use<> {
        (0..self.paths.len()).map_while(|n| Index::try_from(n).ok())
    }

    pub fn path(&self, of: Index) -> &Registered {
        &self.paths[of as usize]
    }

    pub fn find(&self, path: &StorePath) -> Option<Index> {
        self.by_path.get(path).copied()
    }

    pub fn references(&self, of: Index) -> &[Index] {
        let (from, to) = (self.first[of as usize], self.first[of as usize + 1]);
        &self.references[from as usize..to as usize]
    }

    /// By whom each path is reached from `roots`: itself if it is one; `None`: by nobody.
    pub fn reached(&self, roots: impl IntoIterator<Item = Index>) -> Vec<Option<Index>> {
        let mut by = vec![None; self.paths.len()];
        let mut todo: Vec<Index> = Vec::new();
        for root in roots {
            if by[root as usize].replace(root).is_none() {
                todo.push(root);
            }
        }
        while let Some(from) = todo.pop() {
            for to in self.references(from) {
                if by[*to as usize].is_none() {
                    by[*to as usize] = Some(from);
                    todo.push(*to);
                }
            }
        }
        by
    }
}
