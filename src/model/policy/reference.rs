//! Which flake references begin as they must. What a reference means depends on its scheme, so what could
//! lead elsewhere than it begins is refused.

use std::fmt;

/// Parameters that choose what is taken from where the reference leads, and not where that is. `narHash` is
/// not: some versions of Nix take what has that hash from the store, wherever it came from.
const HARMLESS: [&str; 9] =
    ["dir", "ref", "rev", "lastModified", "revCount", "submodules", "shallow", "allRefs", "lfs"];

/// What a reference has to begin with: a scheme and, as far as it goes, whole parts of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// Why a reference does not begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It begins with none of them.
    Elsewhere,
    /// It might lead elsewhere than it begins.
    Ambiguous(&'static str),
}

impl Prefix {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(
                "it has no scheme: write what references begin with, such as github:owner/",
            );
        };
        let is_scheme = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return Err(
                "its scheme is none: write what references begin with, such as github:owner/",
            );
        }
        if let Some(why) = ambiguity(rest) {
            return Err(why);
        }
        if rest.contains(['?', '#']) {
            return Err("it goes beyond the address: leave out what comes from ? or # on");
        }
        let host = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default());
        if host == Some("") {
            return Err("it names no host, and files of the node are nobody's to name");
        }
        Ok(Self(text.to_owned()))
    }

    /// `github:a` has begun `github:a/b`, but not `github:ab`.
    fn begins(&self, address: &str) -> bool {
        address.strip_prefix(&self.0).is_some_and(|rest| {
            self.0.ends_with(['/', ':']) || rest.is_empty() || rest.starts_with('/')
        })
    }
}

/// Whether the reference, attribute and all, begins with one of them.
pub(super) fn check(prefixes: &[Prefix], reference: &str) -> Result<(), Mismatch> {
    let whole = reference.split('#').next().unwrap_or_default();
    let (address, query) = whole.split_once('?').unwrap_or((whole, ""));
    if !prefixes.iter().any(|prefix| prefix.begins(address)) {
        return Err(Mismatch::Elsewhere);
    }
    let rest = address.split_once(':').map_or("", |(_, rest)| rest);
    if let Some(why) = ambiguity(rest) {
        return Err(Mismatch::Ambiguous(why));
    }
    let names = query.split('&').filter(|pair| !pair.is_empty());
    let mut names = names.map(|pair| pair.split('=').next().unwrap_or_default());
    if !names.all(|name| HARMLESS.contains(&name)) {
        return Err(Mismatch::Ambiguous(
            "only dir, ref, rev, lastModified, revCount, submodules, shallow, allRefs and lfs may \
             follow its ?",
        ));
    }
    Ok(())
}

/// What servers, git and Nix do not all read in one way.
fn ambiguity(path: &str) -> Option<&'static str> {
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Some("a part of its path is . or ..");
    }
    if path.contains('%') {
        return Some("a part of its path is percent-encoded");
    }
    if path.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Some("it has a blank, a backslash or a control character in it");
    }
    None
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
