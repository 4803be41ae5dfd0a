//! From what a failed fetch said to a [`RealiseError`]: whether it is the network's fault or the
//! reference's. Pure; tested with `classify`.

use super::classify::{cause, contains_any, cut};
use super::exit::{BAD_CALL, REFUSES_NONE};
use super::hints::UNSEEN;
use super::internal_log::{LogReader, Message};
use super::{RealiseError, Step};

const NETWORK: [&str; 10] = [
    "resolve host",
    "Could not connect",
    "Couldn't connect",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "Timeout was reached",
    "Network is unreachable",
    "Temporary failure in name resolution",
    "Operation timed out",
];
const GIT: [&str; 4] = [
    "program 'git' failed",
    "executing 'git'",
    "resolving Git reference",
    "Failed to fetch git repository",
];

/// Whether a program's line is of a network that failed.
pub(super) fn is_of_a_network(line: &str) -> bool {
    contains_any(line, &NETWORK)
}

/// `jailed`: an evaluation, which sees few of the node's files.
pub(super) fn network(first: &Message, log: &LogReader, jailed: bool) -> Option<RealiseError> {
    let is_file = jailed && first.text.contains("unable to download 'file:");
    let is_git = contains_any(&first.text, &GIT);
    let status = first
        .text
        .split_once("HTTP error ")
        .and_then(|(_, rest)| rest.get(..3))
        .and_then(|code| code.parse::<u16>().ok());
    let cause = if is_git { git_cause(first, log) } else { cause(first) };
    let hint = match status {
        Some(401 | 403) => Some("the source needs credentials"),
        Some(404) => Some("check the name; a private source answers so without credentials"),
        _ if first.text.contains(BAD_CALL) => Some(REFUSES_NONE),
        _ if is_file => Some(UNSEEN),
        _ if is_git && cause.contains("does not appear to be a git repository") => Some(UNSEEN),
        _ => None,
    };
    let download = contains_any(&first.text, &["unable to download", "Failed to fetch"]);
    // From 2.20 on, of a download that broke off: they unpack while they read.
    let broke_off = contains_any(&first.text, &["Truncated tar archive", "from tarball"]);
    let for_now = match status {
        _ if broke_off => true,
        None if is_file || first.text.contains("bad/illegal format") => false,
        // curl names the status of an answer that broke off, too.
        Some(..=299 | 408 | 429 | 500..) => true,
        // GitHub's way to say 429.
        Some(403) if first.text.contains("rate limit") => true,
        Some(_) => false,
        None => first.text.contains("unable to download") || contains_any(&cause, &NETWORK),
    };
    let step = Step::Fetch;
    if for_now {
        let way_out = match status {
            _ if cause.contains("flake-registry") => {
                Some("name the flake in full, such as github:owner/repo")
            }
            Some(403 | 429) => {
                Some("its host limits requests: name a revision, or give it an access token")
            }
            _ => None,
        };
        let cause = match way_out {
            Some(way_out) => format!("{cause} ({way_out})"),
            None => cause,
        };
        return Some(RealiseError::Temporary { step, cause });
    }
    (download || is_git).then(|| RealiseError::Refused {
        step,
        cause,
        hint: hint.map(str::to_owned),
    })
}

/// git says why on its own lines, `fatal: …`; newer versions of Nix go on without what it did not
/// bring.
fn git_cause(first: &Message, log: &LogReader) -> String {
    let fatal = log.plain().find_map(|l| l.strip_prefix("fatal: "));
    let is_missing = |line: &str| {
        line.contains("executing") && line.contains("git") && line.contains("No such file")
    };
    match fatal {
        Some(reason) => cut(&format!("git: {reason}")),
        None if log.plain().any(is_missing) => "git is not installed on this node".to_owned(),
        None => cause(first),
    }
}
