//! What helps against a request that Nix refused, by words of its message. Pure.

use super::Step;

/// Words of a message, the step they belong to, and what helps.
pub(super) const HINTS: [(&[&str], Step, &str); 9] = [
    (
        &["allow-import-from-derivation"],
        Step::Evaluate,
        "import-from-derivation is off on this node: build that part in advance",
    ),
    (
        &["access to URI"],
        Step::Evaluate,
        "the operator lists what an expression may fetch in allowed-uris; a flake may fetch",
    ),
    (
        &["restricted mode", "pure evaluation mode"],
        Step::Evaluate,
        "an evaluation on a node may not read the node's files",
    ),
    (
        &[
            "does not evaluate to a derivation",
            "entries in its context",
            "has context with the output",
        ],
        Step::Evaluate,
        "it must evaluate to one derivation, or to a function whose arguments have defaults",
    ),
    (
        &["was not found in the Nix search path"],
        Step::Evaluate,
        "a node has no channels: name the source in a flake, and give its flakeRef",
    ),
    (&["argument without a value"], Step::Evaluate, "give every argument a default"),
    (&["does not provide attribute"], Step::Evaluate, "nix flake show lists what it provides"),
    (
        &["in the flake registries", "flake-registry"],
        Step::Fetch,
        "name the flake in full, such as github:owner/repo",
    ),
    (&["getting status of", "does not exist", "could not find a flake.nix"], Step::Fetch, ""),
];
