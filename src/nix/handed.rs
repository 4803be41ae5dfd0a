//! What an evaluation in a store of the tenant's own has handed to the node's.
//!
//! The evaluator has read what its tenant wrote, and may be the tenant's by then: neither what it says nor its
//! store's database is believed. `nix copy` copies nothing that the node has already, so what is handed over may
//! name anything there. Hence each path of it is to be in the tenant's own store, with the very same in it.
//!
//! Nix takes a build's inputs from the derivation's text, and keeps alive what it refers to. In what Nix itself
//! writes both are the same; a text that an expression wrote by hand (`builtins.toFile "x.drv"`) may name any path
//! of the node for its input.

use std::collections::HashSet;
use std::path::Path;

use crate::model::{StorePath, Vouched};
use crate::read::text_at_most;

use super::error::io_error;
use super::real::Inner;
use super::tenant_dirs::TenantDir;
use super::{Buildable, Evaluated, RealiseError, Step, derivation, nar};

/// Bytes of one derivation.
const MAX: usize = 64 << 20;
const HINT: &str =
    "evaluations for this namespace build what they have made themselves, by builtins.derivation";

/// Blocking. What the node may build or show, with what its database says of it; it is there, with a root. `own`: the
/// tenant's store, if that is all that the evaluation saw.
pub(super) fn check(
    nix: &Inner,
    evaluated: Evaluated,
    own: Option<&TenantDir>,
) -> Result<Evaluated, RealiseError> {
    if let Some(own) = own {
        check_own(nix, &evaluated.buildable, own)?;
    }
    let Buildable::Output { derivation, output } = &evaluated.buildable else {
        return Ok(evaluated);
    };
    let path = nix.database().output_of(derivation, output)?;
    match (&path, &evaluated.path) {
        (Some(path), Some(said)) if path != said => {
            Err(refused(format!("{derivation} makes {path}, and not {said}")))
        }
        // Nothing was built where it was evaluated.
        (None, Some(said)) if own.is_some() => {
            Err(refused(format!("{derivation} has no output {output} at {said}")))
        }
        _ => Ok(Evaluated { path, ..evaluated }),
    }
}

fn check_own(nix: &Inner, buildable: &Buildable, own: &TenantDir) -> Result<(), RealiseError> {
    let (Buildable::Output { derivation: path, .. } | Buildable::Path(path)) = buildable;
    if let Buildable::Path(path) = buildable
        && !nix.database().is_content_addressed(path)?
    {
        return Err(not_its_own(path));
    }
    for one in nix.database().vouched_closure(path)? {
        if own.has_shown(&one) {
            continue;
        }
        if !has(own, &one)? {
            return Err(not_its_own(&one.path));
        }
        if one.path.is_derivation() {
            check_inputs(nix, &one)?;
        }
        own.shows(&one);
    }
    Ok(())
}

/// It may be another a moment later: who had it knows it.
fn has(own: &TenantDir, one: &Vouched) -> Result<bool, RealiseError> {
    let file = Path::new("nix/store").join(one.path.base_name());
    let hash = own.open().and_then(|tree| nar::hash(&tree, &file, one.nar_size));
    Ok(hash.map_err(|err| io_error("read", &file, err))? == Some(one.sha256))
}

fn check_inputs(nix: &Inner, one: &Vouched) -> Result<(), RealiseError> {
    let file = nix.config.store_dir.join(one.path.base_name());
    let text = text_at_most(&file, MAX).map_err(|err| io_error("read", &file, err))?;
    let Some(inputs) = derivation::inputs(&text) else {
        return Err(refused(format!("{} is no derivation as Nix writes one", one.path)));
    };
    let refers: HashSet<_> = one.references.iter().collect();
    match inputs.into_iter().find(|input| !refers.contains(input)) {
        Some(input) => Err(refused(format!("{} takes {input} without referring to it", one.path))),
        None => Ok(()),
    }
}

fn not_its_own(path: &StorePath) -> RealiseError {
    refused(format!("it comes to {path}, which its namespace has neither made nor fetched"))
}

fn refused(cause: String) -> RealiseError {
    RealiseError::Refused { step: Step::Evaluate, cause, hint: Some(HINT.to_owned()) }
}
