//! From the registry to docs/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use nix_csi::app::metric_families;
use nix_csi::metrics::{Family, kind};

use super::manifests::{below, root};

/// Of ours, as `metric_families` has them, and of the library's: those about the process.
pub(crate) fn families() -> Vec<Family> {
    let mut families = metric_families();
    let ours: BTreeSet<_> = families.iter().map(|family| family.name.clone()).collect();
    for gathered in prometheus::gather().iter().filter(|family| !ours.contains(family.name())) {
        let metrics = gathered.get_metric();
        assert!(metrics.iter().all(|metric| metric.get_label().is_empty()), "{}", gathered.name());
        families.push(Family {
            name: gathered.name().to_owned(),
            help: gathered.help().to_owned(),
            kind: kind(gathered.get_field_type()),
            labels: Vec::new(),
        });
    }
    families.sort();
    families
}

/// Of each family and label the values that are there from the start.
fn first_values() -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut values: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for family in prometheus::gather() {
        for label in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
            let of = (family.name().to_owned(), label.name().to_owned());
            values.entry(of).or_default().insert(label.value().to_owned());
        }
    }
    values
}

/// As the naming conventions of Prometheus say it, or a label.
fn unit(family: &Family) -> &'static str {
    let base = family.name.strip_suffix("_total").unwrap_or(&family.name);
    if base.ends_with("_seconds") {
        "seconds"
    } else if base.ends_with("_bytes") {
        "bytes"
    } else if family.labels.iter().any(|label| label == "unit") {
        "as `unit` says"
    } else {
        ""
    }
}

pub(crate) fn markdown() -> String {
    let mut text = "| metric | type | unit | labels | |\n|---|---|---|---|---|\n".to_owned();
    let families = families();
    let values = first_values();
    for family in &families {
        let label = |name: &String| {
            let of = values.get(&(family.name.clone(), name.clone()));
            let of = of.map(|of| of.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
            of.map_or_else(|| format!("`{name}`"), |values| format!("`{name}` ({values})"))
        };
        let labels = family.labels.iter().map(label).collect::<Vec<_>>().join(", ");
        let Family { name, kind, help, .. } = family;
        let _ = writeln!(text, "| `{name}` | {kind} | {} | {labels} | {help} |", unit(family));
    }
    text
}

/// Each word that begins as our metrics do, without what the text format puts behind names.
fn named(text: &str, is_before: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("nixcsi_").filter(|(at, _)| is_before(&text[..*at])) {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let word = &rest[..end.unwrap_or(rest.len())];
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s));
        names.insert(family.unwrap_or(word).to_owned());
    }
    names
}

fn texts(room: &str, extension: &str) -> Vec<String> {
    let files = below(&root().join(room), extension);
    files.into_iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// Whoever adds a metric has it registered for the list.
#[test]
fn each_metric_of_the_code_is_listed() {
    let sources = texts("src", "rs");
    let literals = sources.iter().flat_map(|text| named(text, |before| before.ends_with('"')));
    let literals: BTreeSet<_> = literals.filter(|name| name != "nixcsi_").collect();
    let listed: BTreeSet<_> = metric_families().into_iter().map(|family| family.name).collect();
    assert!(literals.len() > 40, "only {} names were found", literals.len());
    assert_eq!(literals, listed);
}

#[test]
fn each_metric_that_documentation_names_is_there() {
    let pages = texts("docs", "md");
    let listed: BTreeSet<_> = metric_families().into_iter().map(|family| family.name).collect();
    let named: BTreeSet<_> = pages.iter().flat_map(|text| named(text, |_| true)).collect();
    let lacking: Vec<_> = named.difference(&listed).collect();
    assert!(lacking.is_empty(), "documentation names {lacking:?}, which no metric is called");
}
