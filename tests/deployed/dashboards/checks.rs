//! Each dashboard as Grafana would take it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::board::TAG;
use super::rendered;
use crate::alerts::recorded;
use crate::manifests::{list, read, text};
use crate::metrics::families;
use crate::promql::{assert_named, family, words};

/// Prometheus has them of each target, or of histograms, or of alerts.
const LABELS_OF_ALL: [&str; 5] = ["cluster", "namespace", "node", "instance", "le"];
const LABELS_OF_ALERTS: [&str; 3] = ["alertname", "alertstate", "severity"];
/// Of Grafana's units those that are used here.
const UNITS: [&str; 9] =
    ["none", "short", "percentunit", "s", "bytes", "Bps", "ops", "reqps", "bool_yes_no"];
/// Of no panel, and why.
const NOT_SHOWN: [(&str, &str); 0] = [];

/// Without the headings.
fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    list(board, "/panels").iter().filter(|panel| panel["type"] != "row")
}

fn expressions() -> Vec<String> {
    let mut all = Vec::new();
    for (_, board) in rendered() {
        let targets = panels(&board).flat_map(|panel| list(panel, "/targets"));
        let annotations = list(&board, "/annotations/list");
        all.extend(targets.chain(annotations).map(|of| text(of, "/expr").to_owned()));
    }
    all
}

#[test]
fn each_expression_names_metrics_and_labels_that_there_are() {
    let (families, recorded) = (families(), recorded());
    let all = expressions();
    assert!(all.len() > 80, "only {}", all.len());
    for expression in &all {
        assert_named(expression, &families, &recorded, &LABELS_OF_ALL);
        let mut known: BTreeSet<_> = LABELS_OF_ALL.into_iter().collect();
        known.extend(
            expression.contains("ALERTS").then_some(LABELS_OF_ALERTS).into_iter().flatten(),
        );
        let named = words(expression).filter_map(|(_, word, _)| family(word, &families));
        known.extend(named.flat_map(|family| family.labels.iter().map(String::as_str)));
        for by in groups(expression) {
            assert!(known.contains(by), "{by}: {expression}");
        }
    }
}

/// Labels that a sum or a match is by.
fn groups(expression: &str) -> Vec<&str> {
    let by = words(expression)
        .filter(|(_, word, rest)| ["by", "on", "ignoring"].contains(word) && rest.starts_with('('));
    let lists = by.map(|(_, _, rest)| rest[1..].split(')').next().unwrap());
    lists.flat_map(|labels| labels.split(',').map(str::trim)).collect()
}

/// A counter means something as a rate alone, which means nothing of a gauge.
#[test]
fn counters_are_shown_as_rates_and_gauges_are_not() {
    let families = families();
    for expression in expressions() {
        for (before, word, _) in words(&expression) {
            let Some(family) = family(word, &families) else { continue };
            let is_rate = before.ends_with("rate(") || before.ends_with("increase(");
            assert_eq!(is_rate, family.kind != "gauge", "{word}: {expression}");
        }
    }
}

#[test]
fn a_legend_names_labels_that_its_query_leaves() {
    for (name, board) in rendered() {
        for target in panels(&board).flat_map(|panel| list(panel, "/targets")) {
            let (expression, legend) = (text(target, "/expr"), text(target, "/legendFormat"));
            let by = groups(expression);
            for part in legend.split("{{").skip(1) {
                let label = part.split("}}").next().unwrap();
                // What is no sum has all that its targets have.
                let is_left = by.contains(&label)
                    || !expression.contains(" by (") && LABELS_OF_ALL.contains(&label);
                assert!(is_left, "{name}: {legend}: {expression}");
            }
        }
    }
}

#[test]
fn each_metric_is_on_a_dashboard() {
    let families = families();
    let all = expressions();
    let shown: BTreeSet<_> = all
        .iter()
        .flat_map(|expression| words(expression))
        .filter_map(|(_, word, _)| family(word, &families))
        .collect();
    let listed: BTreeSet<_> = NOT_SHOWN.iter().map(|(name, _)| *name).collect();
    let is_lacking = |family: &&nix_csi::metrics::Family| !shown.contains(*family);
    let lacking: BTreeSet<_> =
        families.iter().filter(is_lacking).map(|family| family.name.as_str()).collect();
    assert_eq!(lacking, listed, "put them on a dashboard, or say here why not");
}

#[test]
fn each_panel_says_what_it_is_in_which_unit_and_what_is_good() {
    let runbooks = read("docs/alerts.md");
    for (name, board) in rendered() {
        assert!(!text(&board, "/description").is_empty());
        for panel in panels(&board) {
            let title = text(panel, "/title");
            assert!(UNITS.contains(&text(panel, "/fieldConfig/defaults/unit")), "{name}: {title}");
            let says = text(panel, "/description");
            assert!(says.len() > 30 && says.ends_with('.'), "{name}: {title}: {says}");
            assert!(!list(panel, "/targets").is_empty(), "{name}: {title}");
            for (_, word, _) in words(says).filter(|(_, word, _)| word.starts_with("NixCsi")) {
                assert!(runbooks.contains(&format!("\n## {word}\n")), "{name}: {title}: {word}");
            }
        }
    }
}

#[test]
fn panels_and_dashboards_are_told_apart_and_panels_do_not_overlap() {
    let mut uids = BTreeSet::new();
    for (name, board) in rendered() {
        let uid = text(&board, "/uid").to_owned();
        assert_eq!(format!("{uid}.json"), format!("nix-csi-{name}"));
        assert!(uids.insert(uid) && board["schemaVersion"].as_u64() >= Some(39));
        let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for panel in list(&board, "/panels") {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {}", panel["id"]);
            assert!(titles.insert(text(panel, "/title")), "{name}: {}", panel["title"]);
            let of = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(of("x") + of("w") <= 24, "{name}: {}", panel["title"]);
            for (x, y) in (of("x")..of("x") + of("w"))
                .flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y)))
            {
                assert!(taken.insert((x, y)), "{name}: {} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn links_lead_to_dashboards_and_keep_what_is_chosen() {
    let boards = rendered();
    let uids: BTreeSet<_> = boards.iter().map(|(_, board)| text(board, "/uid")).collect();
    let mut seen = 0;
    for (name, board) in &boards {
        assert_eq!(board["tags"], serde_json::json!([TAG]));
        let row = &board["links"][0];
        assert!(
            row["tags"] == board["tags"] && row["includeVars"] == true && row["keepTime"] == true
        );
        for link in panels(board).flat_map(|panel| list(panel, "/fieldConfig/defaults/links")) {
            let (to, query) =
                text(link, "/url").strip_prefix("/d/").unwrap().split_once('?').unwrap();
            assert!(uids.contains(to) && to != text(board, "/uid"), "{name}: {to}");
            assert_eq!(query, "${__url_time_range}&${__all_variables}");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen}");
}

/// Colours with a name are others in the dark.
#[test]
fn colours_are_of_grafanas_palette_and_variables_work_without_their_labels() {
    for (name, board) in rendered() {
        let text = serde_json::to_string(&board).unwrap();
        assert!(!text.contains("\"#") && !text.contains("rgb("), "{name}");
        for variable in list(&board, "/templating/list").iter().skip(1) {
            assert!(variable["allValue"] == ".*" && variable["includeAll"] == true, "{name}");
        }
    }
}
