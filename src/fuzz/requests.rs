//! Sources, as attributes and lists have them.

use super::{refusal, text};
use crate::model::{Source, SourceList, without_credentials};

/// The attribute's name, a newline, and its value.
pub(crate) fn source(data: &[u8]) {
    let text = text(data);
    let (key, value) = text.split_once('\n').unwrap_or(("flakeRef", &text));
    match Source::parse(key, value) {
        Ok(source) => whole(&source),
        Err(error) => refusal(&error),
    }
    match Source::parse_either(value) {
        Ok(source) => {
            assert_eq!(Source::parse_either(&source.text()), Ok(source.clone()));
            whole(&source);
        }
        Err(error) => refusal(&error),
    }
}

fn whole(source: &Source) {
    assert_eq!(Source::parse(source.key(), &source.text()).as_ref(), Ok(source));
    let public = source.public_text();
    assert_eq!(without_credentials(&public), public);
    let shown = format!("{source:?}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(shown.chars().count() < 120, "{shown:?}");
}

pub(crate) fn source_list(data: &[u8]) {
    let text = text(data);
    let list = SourceList::parse(&text);
    list.refused.iter().for_each(refusal);
    assert!(list.refused.len() <= text.lines().count().min(SourceList::MAX_REFUSED + 1));
    let mut seen = std::collections::HashSet::new();
    assert!(list.sources.iter().all(|source| seen.insert(source)), "one twice");
    list.sources.iter().for_each(whole);
    let lines: Vec<_> = list.sources.iter().map(Source::text).collect();
    let again = SourceList::parse(&lines.join("\n"));
    assert_eq!(again, SourceList { sources: list.sources, ..SourceList::default() });
}
