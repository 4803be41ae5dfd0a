//! Deletes paths through Nix, which looks for what holds them itself, and stops at the first that something
//! holds: the rest is given to it again.
//!
//! Nix takes the paths in an order of its own, and one that is referred to by a path that it was not given is
//! alive to it.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::model::StorePath;

use super::collect::command;
use super::db::Known;
use super::{Deletion, Garbage, NixError, RealNix, process, text};

/// Paths of one command: 255 bytes at most each, where Linux takes 2 MiB.
const CHUNK: usize = 1000;
/// Commands for one chunk. One is enough if nothing became alive since the caller looked, two if it has a
/// root; what is left after so many counts as alive.
const ROUNDS: usize = 20;
/// Bytes of a line: two store paths fit.
const MAX_LINE: usize = 800;

/// See [`Garbage::delete`].
pub(super) async fn delete(nix: RealNix, paths: Vec<StorePath>) -> Result<Deletion, NixError> {
    let mut deletion = Deletion::default();
    for chunk in paths.chunks(CHUNK) {
        let before = known(&nix, chunk).await?;
        delete_chunk(&nix, chunk, &before).await?;
        let after = known(&nix, chunk).await?;
        for ((path, before), after) in chunk.iter().zip(before).zip(after) {
            match (before, after) {
                (_, Some(_)) => deletion.alive.push(path.clone()),
                (Some(_), None) => deletion.deleted.push(path.clone()),
                (None, None) => {}
            }
        }
    }
    Ok(deletion)
}

/// `now`: what is known of them.
async fn delete_chunk(nix: &RealNix, paths: &[StorePath], now: &[Known]) -> Result<(), NixError> {
    let (mut held, mut now) = (HashSet::new(), Cow::Borrowed(now));
    for _ in 0..ROUNDS {
        let free = free(paths, &now, &held);
        if free.is_empty() {
            break;
        }
        let Some(alive) = run(nix, &free).await? else { break };
        held.insert(alive);
        // What is below a new root is held, too: Nix would name it path by path.
        held.extend(nix.roots().await?.into_iter().map(|root| root.path));
        now = Cow::Owned(known(nix, paths).await?);
    }
    Ok(())
}

async fn known(nix: &RealNix, paths: &[StorePath]) -> Result<Vec<Known>, NixError> {
    let (nix, paths) = (nix.clone(), paths.to_vec());
    // More than there are here can't all be here.
    let look = move || nix.database().referrers(&paths, CHUNK + 1);
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|panic| NixError::panicked("looking for referrers", &panic))?
}

/// Those that are valid, not held, and referred to by none but each other.
fn free(paths: &[StorePath], known: &[Known], held: &HashSet<StorePath>) -> Vec<StorePath> {
    let all = || paths.iter().zip(known);
    let valid = all().filter(|(path, known)| known.is_some() && !held.contains(path));
    let mut free: HashSet<&StorePath> = valid.map(|(path, _)| path).collect();
    loop {
        let before = free.len();
        for (path, referrers) in all() {
            if referrers.iter().flatten().any(|referrer| !free.contains(referrer)) {
                free.remove(path);
            }
        }
        if free.len() == before {
            return paths.iter().filter(|path| free.contains(path)).cloned().collect();
        }
    }
}

/// Gives the path at which Nix stopped because something holds it.
pub(super) async fn run(nix: &RealNix, paths: &[StorePath]) -> Result<Option<StorePath>, NixError> {
    let names = paths.iter().map(|path| path.to_string().into());
    let spec = command(nix.config(), ["--delete".into()].into_iter().chain(names));
    let (mut alive, mut last) = (None, String::new());
    let on_line = |line: &[u8]| {
        if !line.is_empty() {
            last = text::clean(&String::from_utf8_lossy(line), MAX_LINE);
            alive = refused(&last).or(alive.take());
        }
    };
    let (ended, ()) = process::run(&spec, &[], on_line, ()).await?;
    match alive {
        _ if ended.exit.is_ok() => Ok(None),
        Some(path) if paths.contains(&path) => Ok(Some(path)),
        _ => Err(NixError::Command { what: "nix-store --delete".to_owned(), detail: last }),
    }
}

/// `error: Cannot delete path '/nix/store/…' since it is still alive. To find out why, use: …`; another
/// reason in Determinate Nix, and a small letter in Lix.
pub(super) fn refused(line: &str) -> Option<StorePath> {
    let (_, rest) = line.split_once("annot delete path '")?;
    StorePath::parse(rest.split_once('\'')?.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::db::tests::path;

    #[test]
    fn refusals_of_all_versions_are_read() {
        let name = path('a', "x");
        for line in [
            format!(
                "error: Cannot delete path '{name}' since it is still alive. To find out why, use: nix-store \
                 --query --roots and nix-store --query --referrers"
            ),
            format!(
                "error: Cannot delete path '{name}' because it's referenced by path '/nix/store/y'"
            ),
            format!("       error: cannot delete path '{name}' since it is still alive"),
        ] {
            assert_eq!(refused(&line), Some(name.clone()), "{line}");
        }
        for line in ["", "deleting '/nix/store/x'", "error: Cannot delete path '/etc'"] {
            assert_eq!(refused(line), None);
        }
    }

    #[test]
    fn what_is_held_holds_what_it_refers_to() {
        // 0 → 1 → 2, 3 apart, 4 not valid; the other is not among them.
        let mut paths = ['a', 'b', 'c', 'd', 'f'].map(|letter| path(letter, "p")).to_vec();
        let other = path('x', "p");
        let by = |path: &StorePath| Some(vec![path.clone()]);
        let mut known = vec![Some(vec![]), by(&paths[0]), by(&paths[1]), Some(vec![]), None];
        let none = HashSet::new();
        assert_eq!(free(&paths, &known, &none), paths[..4]);
        let held = HashSet::from([paths[0].clone()]);
        assert_eq!(free(&paths, &known, &held), paths[3..4]);
        known[3] = by(&other);
        assert_eq!(free(&paths, &known, &none), paths[..3]);
        // Whatever their order.
        paths.reverse();
        known.reverse();
        assert_eq!(free(&paths, &known, &held), []);
    }
}
