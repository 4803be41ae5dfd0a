//! What is to be copied: a closure of the image's, references before what refers to them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::error::BootstrapError as Error;
use super::place::Place;
use crate::model::{StorePath, Vouched};
use crate::nix::NixError;
use crate::nix::beneath::Beneath;
use crate::nix::db::Database;
use crate::nix::error::io_error;

/// An image's store.
pub(super) struct Source {
    pub(super) from: PathBuf,
    pub(super) tree: Beneath,
    /// References first.
    pub(super) closure: Vec<Vouched>,
}

impl Source {
    pub(super) fn read(from: &Path, environment: &StorePath) -> Result<Self, Error> {
        let database = Database::of_image(&from.join("var/nix"));
        let closure = database.vouched_closure(environment).map_err(|error| match error {
            NixError::NotValid { path } => Error::NotThere { path, from: from.to_owned() },
            error => error.into(),
        })?;
        let tree = Beneath::open(from).map_err(|err| io_error("open", from, err))?;
        Ok(Self { from: from.to_owned(), tree, closure: references_first(closure) })
    }
}

/// Those that the destination does not have, in the same order. What it has is compared with what it has registered: a
/// power cut may have come between the two.
pub(super) fn missing(closure: &[Vouched], place: &Place) -> Result<Vec<StorePath>, Error> {
    let mut missing = Vec::new();
    for one in closure {
        if place.is_valid(&one.path)? {
            place.is_as_registered(&one.path)?;
        } else {
            missing.push(one.path.clone());
        }
    }
    Ok(missing)
}

/// The way of a depth-first search, without a stack frame each.
fn references_first(closure: Vec<Vouched>) -> Vec<Vouched> {
    enum Step {
        Enter(StorePath),
        Leave(StorePath),
    }
    let mut left: HashMap<_, _> = closure.into_iter().map(|one| (one.path.clone(), one)).collect();
    let mut todo: Vec<_> = left.keys().cloned().map(Step::Enter).collect();
    let (mut seen, mut sorted) = (HashSet::new(), Vec::new());
    while let Some(step) = todo.pop() {
        match step {
            Step::Enter(path) if seen.insert(path.clone()) => {
                let references = left.get(&path).map(|one| one.references.clone());
                todo.push(Step::Leave(path));
                todo.extend(references.into_iter().flatten().map(Step::Enter));
            }
            Step::Enter(_) => {}
            Step::Leave(path) => sorted.extend(left.remove(&path)),
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::db::tests::path;

    #[test]
    fn references_come_first() {
        let one = |letter: char, references: &str| Vouched {
            path: path(letter, "x"),
            sha256: [0; 32],
            nar_size: 0,
            references: references.chars().map(|letter| path(letter, "x")).collect(),
            signatures: Vec::new(),
        };
        // With one that refers to itself.
        let closure = vec![one('a', "bcd"), one('b', "bc"), one('c', ""), one('d', "b")];
        let sorted = references_first(closure);
        assert_eq!(sorted.len(), 4);
        for (at, one) in sorted.iter().enumerate() {
            let before: Vec<_> = sorted[..=at].iter().map(|one| &one.path).collect();
            assert!(one.references.iter().all(|path| before.contains(&path)), "{}", one.path);
        }
    }
}
