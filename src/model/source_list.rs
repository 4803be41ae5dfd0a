//! Sources as people list them, without saying of which kind each is: one a line.

use std::collections::HashSet;

use super::{STORE_DIR, Source};

/// Why a text names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason}: write a store path such as {STORE_DIR}/…-hello, or a flake reference such as github:owner/repo#attribute"
)]
pub struct InvalidEntry {
    reason: String,
}

impl Source {
    /// A store path or a flake reference, whichever the text is.
    pub fn parse_either(text: &str) -> Result<Self, InvalidEntry> {
        let bad = |reason: &str| Err(InvalidEntry { reason: reason.to_owned() });
        if text.starts_with('-') {
            return bad("a source does not begin with a dash");
        }
        if text.contains(char::is_whitespace) {
            return bad("a source has no space in it");
        }
        // A flake may lie in the store: its reference goes on behind the path.
        let in_store = text.strip_prefix(STORE_DIR).is_some_and(|rest| rest.starts_with('/'));
        let key = if in_store && !text.contains(['#', '?']) { "storePath" } else { "flakeRef" };
        Self::parse(key, text).map_err(|invalid| {
            let reason = invalid.to_string();
            // There are no attributes here.
            let reason = reason.strip_prefix("volumeAttributes.").unwrap_or(&reason);
            InvalidEntry { reason: reason.to_owned() }
        })
    }
}

/// What a list names. A bad line costs that line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceList {
    /// In the list's order, each once.
    pub sources: Vec<Source>,
    /// `line 3: …` for each that is none, and behind [`Self::MAX_REFUSED`] how many more there are.
    pub refused: Vec<String>,
}

impl SourceList {
    /// Of a file that is no list, no more is said.
    pub const MAX_REFUSED: usize = 20;

    /// One a line; empty lines and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let (mut seen, mut more) = (HashSet::new(), 0);
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match Source::parse_either(line) {
                Ok(source) if !seen.insert(source.clone()) => {}
                Ok(source) => list.sources.push(source),
                Err(_) if list.refused.len() == Self::MAX_REFUSED => more += 1,
                Err(invalid) => list.refused.push(format!("line {}: {invalid}", n + 1)),
            }
        }
        if more > 0 {
            list.refused.push(format!("{more} more lines are no sources"));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello";

    #[test]
    fn a_text_says_by_itself_what_it_is() {
        let kind = |text: &str| Source::parse_either(text).map(|source| source.key());
        assert_eq!(kind(PATH).unwrap(), "storePath");
        for flake in ["github:o/r#x", "nixpkgs", &format!("{PATH}#x"), &format!("{PATH}?dir=a")] {
            assert_eq!(kind(flake).unwrap(), "flakeRef", "{flake}");
        }
        for (bad, reason) in [
            ("--option", "a source does not begin with a dash"),
            ("github:o/r #x", "a source has no space in it"),
            ("/nix/store/hello", "storePath: \"hello\" is not a store path"),
            ("a\u{1}b", "flakeRef has a control character in it"),
        ] {
            let error = kind(bad).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
            assert!(error.contains("write a store path such as /nix/store/…-hello"), "{error}");
        }
    }

    #[test]
    fn a_bad_line_costs_that_line() {
        let text = format!("# warm\n\n  {PATH}\r\nhello world\ngithub:o/r#x\n{PATH}\n");
        let list = SourceList::parse(&text);
        assert_eq!(list.sources.len(), 2);
        assert_eq!(list.refused.len(), 1);
        assert!(list.refused[0].starts_with("line 4: a source has no space in it"));
    }

    #[test]
    fn of_what_is_no_list_little_is_said() {
        let list = SourceList::parse(&"-\n".repeat(100_000));
        assert_eq!(list.refused.len(), SourceList::MAX_REFUSED + 1);
        assert_eq!(list.refused.last().unwrap(), "99980 more lines are no sources");
        let many: Vec<_> = (0..100_000).map(|n| format!("f{}", n % 50_000)).collect();
        assert_eq!(SourceList::parse(&many.join("\n")).sources.len(), 50_000);
    }
}
