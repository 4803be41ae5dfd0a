//! Messages that the documentation quotes: the first cells of tables whose first head is `message`. Each is a code
//! span, with `…` for what differs.

use std::fs;

use super::manifests::{below, root};

/// Bytes that a value or a hint between two parts of a message may take in the source.
const GAP: usize = 400;

/// The messages of all pages, with the page's name.
fn quoted() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in below(&root().join("docs"), "md") {
        let text = fs::read_to_string(&page).unwrap();
        let mut of_messages = false;
        for line in text.lines() {
            of_messages = line.starts_with("| message |") || of_messages && line.starts_with('|');
            let cell = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |"));
            if let Some((message, _)) = cell.filter(|_| of_messages) {
                let name = page.file_name().unwrap().to_str().unwrap();
                found.push((name.to_owned(), message.to_owned()));
            }
        }
    }
    found
}

/// A source without its tests, with string literals as they are said.
fn said(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut parts = source.split("\\\n");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, rest| text + rest.trim_start()).replace("\\\"", "\"")
}

fn sources() -> Vec<String> {
    let files = below(&root().join("src"), "rs").into_iter();
    let own = files.filter(|file| !file.ends_with("tests.rs"));
    own.map(|file| said(&fs::read_to_string(file).unwrap())).collect()
}

/// Whether all parts of it are there, one soon after the other.
fn says(source: &str, parts: &[&str]) -> bool {
    let [first, rest @ ..] = parts else { return true };
    source.match_indices(first).any(|(at, _)| {
        let mut after = &source[at + first.len()..];
        rest.iter().all(|part| match after.find(part) {
            Some(gap) if gap <= GAP => {
                after = &after[gap + part.len()..];
                true
            }
            _ => false,
        })
    })
}

#[test]
fn each_message_that_documentation_quotes_is_said() {
    let all = sources();
    let quoted = quoted();
    assert!(quoted.len() > 20, "only {} messages were found", quoted.len());
    let mut unsaid = Vec::new();
    for (page, message) in quoted {
        let parts: Vec<_> = message.split('…').map(str::trim).filter(|p| !p.is_empty()).collect();
        assert!(parts.iter().any(|part| part.len() >= 12), "{page}: {message:?} may be anything");
        if !all.iter().any(|source| says(source, &parts)) {
            unsaid.push(format!("{page}: {message}"));
        }
    }
    assert!(unsaid.is_empty(), "nothing says any more {unsaid:#?}");
}
