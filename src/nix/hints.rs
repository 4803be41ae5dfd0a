//! Words of Nix's messages: what they mean, and what helps against a request that Nix refused. Pure.

use super::Step;
use super::exit::{BAD_CALL, REFUSES_NONE};

/// The surest first; the last is a guess of Nix.
pub(super) const NO_SPACE: [&str; 4] = [
    "No space left on device",
    "database or disk is full",
    "Disk quota exceeded",
    "lack of free disk space",
];
pub(super) const DAEMON_GONE: [&str; 5] = [
    "to socket at",
    "cannot open connection to remote store",
    "Nix daemon disconnected unexpectedly",
    "unexpected end-of-file",
    "Broken pipe",
];
/// Before anything was asked of the node's own daemon, which `NIX_REMOTE` names so.
pub(super) const NO_CONNECTION: &str = "cannot open connection to remote store 'unix://";
pub(super) const NOBODY: [&str; 4] = [
    "there is no substituter that can build it",
    "is not a valid store path",
    "don't know how to build these paths",
    "does not exist and cannot be created",
];

/// What the node is short of, and not the request's fault.
pub(super) const SHORT: [&str; 2] = ["Resource temporarily unavailable", "Too many open files"];

/// `max-jobs` is 0, and no builder takes it; 2.8 and newer versions.
pub(super) const NO_BUILDER: [&str; 2] = ["nable to start any build", "local builds are disabled"];
/// A substituter has it, and the node does not believe it, with what to do; 2.8 and newer versions.
pub(super) const DISBELIEVED: [(&[&str], &str); 2] = [
    (
        &[
            "does not have a valid signature",
            "not signed by any of the keys",
            "lacks a valid signature",
            "lacks a signature by a trusted key",
        ],
        "the operator trusts the key of who built it with --trusted-public-key NAME:KEY, or signs it there with nix store sign",
    ),
    (
        &["hash mismatch importing path", "size mismatch importing path"],
        "what the substituter gives is not what its own record says: it is damaged there, or somebody has changed it; delete it there and copy it anew",
    ),
];

/// A file or a directory of the node that is not in the jail.
pub(super) const UNSEEN: &str =
    "an evaluation sees the store alone; the operator shows it a directory with --eval-path";

/// A store path that is not in the tenant's own store, or what was to be built for an evaluation there.
pub(super) const OWN_STORE: &str = "an evaluation for this namespace sees what it fetches and makes itself, and builds nothing meanwhile: name a \
     path by its source, or the operator's policy sets storePath: true";

/// Words of a message, the step they belong to, and what helps.
pub(super) const HINTS: [(&[&str], Step, &str); 12] = [
    (
        &["allow-import-from-derivation"],
        Step::Evaluate,
        "import-from-derivation is off on this node: build that part in advance, or the operator sets --allow-import-from-derivation",
    ),
    (
        &["access to URI"],
        Step::Evaluate,
        "the operator lists what an expression may fetch with --allowed-uri; a flake may fetch",
    ),
    (
        &["restricted mode"],
        Step::Evaluate,
        "an expression may read the store alone: --eval-mode is restricted on this node",
    ),
    (
        &["pure evaluation mode", "pure eval", "on unlocked flake reference"],
        Step::Evaluate,
        "flakes are pure, and expressions where --eval-mode is pure",
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
    (&["getting status of", "does not exist", "No such file or directory"], Step::Fetch, UNSEEN),
    (&["could not find a flake.nix"], Step::Fetch, ""),
    (&[BAD_CALL], Step::Fetch, REFUSES_NONE),
];
