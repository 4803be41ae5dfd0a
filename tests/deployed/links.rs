//! Links between the files of the documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::manifests::{below, root};

/// The pages of the documentation.
pub(crate) fn files() -> Vec<PathBuf> {
    let rooms = ["", "docs", "deploy"].map(|room| root().join(room));
    let entries = rooms.iter().flat_map(|room| fs::read_dir(room).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|it| it == "md")).collect()
}

/// As forges make them of headings: lower case, blanks to dashes, no other signs.
fn anchors(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let headings = text.lines().filter_map(|line| {
        line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
    });
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// What is between `](` and `)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect()
}

#[test]
fn each_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let is_there = to.try_exists().unwrap();
            if !is_there || !(anchor.is_empty() || anchors(&to).contains(anchor)) {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found");
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_index_has_each_page() {
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    let pages = below(&root().join("docs"), "md");
    let names = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap());
    let lacking: Vec<_> = names
        .filter(|name| *name != "README.md" && !index.contains(&format!("]({name})")))
        .collect();
    assert_eq!(lacking, [""; 0]);
}
