//! What an evaluation in a store of the tenant's own has handed to the node's.
//!
//! Nix takes a build's inputs from the derivation's text, and keeps alive what it refers to. In what Nix itself
//! writes both are the same; a text that an expression wrote by hand (`builtins.toFile "x.drv"`) may name any path
//! of the node for its input.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::model::StorePath;
use crate::read::text_at_most;

use super::error::io_error;
use super::real::Inner;
use super::{Buildable, Evaluated, RealiseError, Step, derivation};

/// Bytes of one derivation.
const MAX: usize = 64 << 20;
/// Derivations that are known to be good: what a path has in it never changes.
const MOST: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Checked(Mutex<HashSet<StorePath>>);

/// Blocking. Whether the node may build it, or show it: it is there, with a root.
pub(super) fn check(nix: &Inner, evaluated: &Evaluated) -> Result<(), RealiseError> {
    let (derivation, output) = match &evaluated.buildable {
        Buildable::Path(path) if nix.database().is_content_addressed(path)? => return Ok(()),
        Buildable::Path(path) => {
            return Err(refused(format!("it comes to {path}, which it has not made")));
        }
        Buildable::Output { derivation, output } => (derivation, output),
    };
    let told = nix.database().output_of(derivation, output)?;
    if let (Some(told), Some(path)) = (&told, &evaluated.path)
        && told != path
    {
        return Err(refused(format!("{derivation} makes {told}, and not {path}")));
    }
    let mut todo: Vec<_> = nix.database().closure(derivation)?.paths;
    {
        let known = nix.checked.0.lock().unwrap_or_else(PoisonError::into_inner);
        todo.retain(|info| info.path.is_derivation() && !known.contains(&info.path));
    }
    for path in todo.into_iter().map(|info| info.path) {
        check_inputs(nix, &path)?;
        let mut known = nix.checked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(path);
    }
    Ok(())
}

fn check_inputs(nix: &Inner, path: &StorePath) -> Result<(), RealiseError> {
    let file = nix.config.store_dir.join(path.base_name());
    let text = text_at_most(&file, MAX).map_err(|err| io_error("read", &file, err))?;
    let Some(inputs) = derivation::inputs(&text) else {
        return Err(refused(format!("{path} is no derivation as Nix writes one")));
    };
    let refers: HashSet<_> = nix
        .database()
        .vouched(std::slice::from_ref(path))?
        .into_iter()
        .flat_map(|v| v.references)
        .collect();
    match inputs.into_iter().find(|input| !refers.contains(input)) {
        Some(input) => Err(refused(format!("{path} takes {input} without referring to it"))),
        None => Ok(()),
    }
}

fn refused(cause: String) -> RealiseError {
    let hint = "evaluations for this namespace build what they have made themselves, by builtins.derivation";
    RealiseError::Refused { step: Step::Evaluate, cause, hint: Some(hint.to_owned()) }
}
