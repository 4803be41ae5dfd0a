//! Alerts: Prometheus takes them, each fires when it should and not else, names what there is, and has a runbook.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::installed::installed;
use super::manifests::{documents, list, read, root};
use super::promql::{assert_named, words};

const RULES: &str = "deploy/chart/alerts/nix-csi.yaml";
const TESTS: &str = "tests/data/alerts/nix-csi.test.yaml";
/// Of every target of Prometheus', and of histograms.
const LABELS_OF_ALL: [&str; 2] = ["instance", "le"];

fn rules() -> Vec<Value> {
    let groups = documents(&root().join(RULES)).remove(0);
    list(&groups, "/groups").iter().flat_map(|group| list(group, "/rules").to_vec()).collect()
}

/// What the rules record.
pub(crate) fn recorded() -> BTreeSet<String> {
    rules().iter().filter_map(|rule| rule["record"].as_str()).map(str::to_owned).collect()
}

fn names() -> BTreeSet<String> {
    rules().iter().filter_map(|rule| rule["alert"].as_str()).map(str::to_owned).collect()
}

fn promtool(args: &[&str]) -> String {
    let program = format!("{}/promtool", installed("install-promtool.sh"));
    let output = Command::new(program).args(args).current_dir(root()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_when_it_should() {
    let said = promtool(&["check", "rules", RULES]);
    assert!(said.contains(&format!("{} rules found", rules().len())), "{said}");
    promtool(&["test", "rules", TESTS]);
}

#[test]
fn each_alert_is_tried_firing_and_silent() {
    let tests = documents(&root().join(TESTS)).remove(0);
    for name in names() {
        let cases = list(&tests, "/tests").iter().flat_map(|test| list(test, "/alert_rule_test"));
        let cases = cases.filter(|case| case["alertname"] == *name);
        let fires: Vec<_> = cases.map(|case| !list(case, "/exp_alerts").is_empty()).collect();
        assert!(fires.contains(&true) && fires.contains(&false), "{name}: {fires:?}");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_and_has_a_runbook() {
    let page = read("docs/alerts.md");
    let runbooks = page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned);
    assert_eq!(runbooks.collect::<BTreeSet<_>>(), names());
    for rule in rules().iter().filter(|rule| !rule["alert"].is_null()) {
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{rule}");
        for part in ["summary", "description"] {
            assert!(rule["annotations"][part].is_string(), "{rule}");
        }
    }
}

#[test]
fn an_expression_names_metrics_and_labels_that_there_are() {
    let families = super::metrics::families();
    for rule in rules() {
        let expression = rule["expr"].as_str().unwrap();
        assert_named(expression, &families, &recorded(), &LABELS_OF_ALL);
        for (_, by, rest) in words(expression).filter(|(_, word, _)| ["by", "on"].contains(word)) {
            assert!(rest.starts_with("(instance)"), "{by}: {expression}");
        }
    }
}
