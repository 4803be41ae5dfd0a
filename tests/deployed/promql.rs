//! What expressions of alerts and dashboards name.

use std::collections::BTreeSet;

use nix_csi::metrics::Family;

/// Words of an expression, with what is before and what follows each.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let is_of = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    text.split(move |c: char| !is_of(c)).filter(|word| !word.is_empty()).map(move |word| {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        (&text[..at], word, text[at + word.len()..].trim_start())
    })
}

/// The family of a word that names one, with or without what histograms put behind their names.
pub(crate) fn family<'f>(word: &str, families: &'f [Family]) -> Option<&'f Family> {
    let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix));
    let histogram = families.iter().find(|family| Some(&*family.name) == base);
    let histogram = histogram.filter(|family| family.kind == "histogram");
    histogram.or_else(|| families.iter().find(|family| family.name == word))
}

/// Each label that a matcher behind a metric's name has.
pub(crate) fn matched(rest: &str) -> impl Iterator<Item = &str> {
    let matchers = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
    let matchers = matchers.split("\",").filter(|matcher| !matcher.is_empty());
    matchers.map(|matcher| matcher.split(['=', '!']).next().unwrap().trim())
}

/// Metrics of ours that an expression names are `families`, their labels are theirs or `of_all`, and what it takes
/// of rules they record.
pub(crate) fn assert_named(
    expression: &str,
    families: &[Family],
    recorded: &BTreeSet<String>,
    of_all: &[&str],
) {
    for (_, word, rest) in words(expression) {
        if word.starts_with("nixcsi:") {
            assert!(recorded.contains(word), "{word}: {expression}");
        } else if word.starts_with("nixcsi_") || word.starts_with("process_") {
            let family = family(word, families);
            let family = family.unwrap_or_else(|| panic!("{word}: {expression}"));
            for label in matched(rest) {
                let is_there = family.labels.iter().any(|of| of == label);
                assert!(is_there || of_all.contains(&label), "{label}: {expression}");
            }
        }
    }
}
