//! What the dashboards ask Prometheus.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// One query of a panel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Query {
    /// The dashboard's file, without its end.
    pub(crate) board: String,
    pub(crate) panel: String,
    /// The letter of the query, or of an annotation its name.
    pub(crate) letter: String,
    pub(crate) expression: String,
    /// It is asked for one time alone.
    pub(crate) is_instant: bool,
}

/// The panel of queries that are none's.
const ANNOTATIONS: &str = "annotations";

/// The dashboards, by their names.
pub(crate) fn boards() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect();
    all.sort_by(|(a, _): &(String, Value), (b, _)| a.cmp(b));
    assert!(!all.is_empty());
    all
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}")).to_owned()
}

pub(crate) fn queries() -> Vec<Query> {
    let mut all = Vec::new();
    for (board, value) in boards() {
        for panel in list(&value, "/panels") {
            all.extend(list(panel, "/targets").iter().map(|target| Query {
                board: board.clone(),
                panel: text(panel, "title"),
                letter: text(target, "refId"),
                expression: text(target, "expr"),
                is_instant: target["instant"] == true,
            }));
        }
        all.extend(list(&value, "/annotations/list").iter().map(|annotation| Query {
            board: board.clone(),
            panel: ANNOTATIONS.to_owned(),
            letter: text(annotation, "name"),
            expression: text(annotation, "expr"),
            is_instant: false,
        }));
    }
    all
}

/// Queries of the variables: their names, and of `label_values(…)` the series and the label.
pub(crate) fn variables() -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (_, board) in boards() {
        for variable in list(&board, "/templating/list").iter().filter(|v| v["type"] == "query") {
            let query = text(&variable["query"], "query");
            let inner = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
            let (series, label) = inner.unwrap().rsplit_once(", ").unwrap();
            all.push((text(variable, "name"), series.to_owned(), label.to_owned()));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// As Grafana writes values into an expression.
pub(crate) fn substituted(expression: &str, values: &[(&str, &str)]) -> String {
    let mut text = expression.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    assert!(!text.contains('$'), "a variable that is not known: {text}");
    text
}
