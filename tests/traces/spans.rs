//! Spans as a collector's file has them, and a trace as a tree for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Of the whole process.
    pub(crate) resource: BTreeMap<String, String>,
    /// 2 is an error.
    pub(crate) status: u64,
    pub(crate) message: String,
    /// Ids of spans.
    pub(crate) links: Vec<String>,
    begin: u64,
    end: u64,
}

/// One line of the file.
pub(crate) fn parse(line: &str) -> Vec<Span> {
    let line: Value = serde_json::from_str(line).unwrap();
    let mut spans = Vec::new();
    for resource in list(&line["resourceSpans"]) {
        let of = attributes(&resource["resource"]["attributes"]);
        for scope in list(&resource["scopeSpans"]) {
            spans.extend(list(&scope["spans"]).iter().map(|span| one(span, &of)));
        }
    }
    spans
}

fn one(span: &Value, resource: &BTreeMap<String, String>) -> Span {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |value: &Value| value.as_str().unwrap().parse().unwrap();
    Span {
        trace: text(&span["traceId"]),
        id: text(&span["spanId"]),
        parent: text(&span["parentSpanId"]),
        name: text(&span["name"]),
        kind: span["kind"].as_u64().unwrap_or_default(),
        attributes: attributes(&span["attributes"]),
        resource: resource.clone(),
        status: span["status"]["code"].as_u64().unwrap_or_default(),
        message: text(&span["status"]["message"]),
        links: list(&span["links"]).iter().map(|link| text(&link["spanId"])).collect(),
        begin: time(&span["startTimeUnixNano"]),
        end: time(&span["endTimeUnixNano"]),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let pair = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (attribute["key"].as_str().unwrap().to_owned(), value)
    };
    list(of).iter().map(pair).collect()
}

/// The one trace that has a span of this name with this attribute, sorted by when each began.
pub(crate) fn trace_of(spans: &[Span], name: &str, (key, value): (&str, &str)) -> Vec<Span> {
    let is_it = |span: &&Span| {
        span.name == name && span.attributes.get(key).is_some_and(|found| found == value)
    };
    let traces: Vec<_> = spans.iter().filter(is_it).map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 1, "{name} with {key}={value} in {spans:#?}");
    let mut trace: Vec<_> = spans.iter().filter(|s| s.trace == *traces[0]).cloned().collect();
    trace.sort_by_key(|span| span.begin);
    trace
}

/// The one span of this name.
pub(crate) fn named<'a>(trace: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = trace.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in\n{}", tree(trace));
    found[0]
}

/// Names from the root down to the one span of this name, with `/`.
pub(crate) fn path(trace: &[Span], name: &str) -> String {
    let mut span = named(trace, name);
    let mut names = vec![&*span.name];
    while let Some(above) = trace.iter().find(|other| other.id == span.parent) {
        names.insert(0, &above.name);
        span = above;
    }
    names.join(" > ")
}

/// For people; docs/traces.md has one.
pub(crate) fn tree(trace: &[Span]) -> String {
    let mut text = String::new();
    let is_root = |span: &&Span| !trace.iter().any(|other| other.id == span.parent);
    for root in trace.iter().filter(is_root) {
        branch(trace, root, 0, &mut text);
    }
    text
}

fn branch(trace: &[Span], span: &Span, depth: usize, text: &mut String) {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let milliseconds = span.end.saturating_sub(span.begin) as f64 / 1e6;
    let name = format!("{:1$}{2}", "", 2 * depth, span.name);
    write!(text, "{name:<44}{milliseconds:>9.1} ms").unwrap();
    for (key, value) in &span.attributes {
        if !key.starts_with("rpc.") && key != "process.executable.name" {
            write!(text, "  {key}={value}").unwrap();
        }
    }
    if span.status == 2 {
        write!(text, "  ERROR {}", span.message).unwrap();
    }
    text.push('\n');
    for below in trace.iter().filter(|other| other.parent == span.id) {
        branch(trace, below, depth + 1, text);
    }
}
