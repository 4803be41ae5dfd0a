//! Commands of the pages for newcomers: a script follows them, or it is said here why none does.

use std::collections::BTreeSet;

use super::manifests::read;

/// Page, heading, and who follows it: a file that names it.
const FOLLOWED: &[(&str, &str, &str)] = &[
    ("README.md", "nix-csi", "scripts/newcomer.sh"),
    ("README.md", "On one machine", "scripts/newcomer.sh"),
    ("docs/get-started.md", "One machine", "scripts/newcomer.sh"),
    ("docs/get-started.md", "Install", "tests/e2e/get_started.rs"),
    ("docs/get-started.md", "The first pod", "tests/e2e/get_started.rs"),
    ("docs/get-started.md", "More pods", "tests/e2e/get_started.rs"),
    ("docs/get-started.md", "A cache", "tests/e2e/get_started.rs"),
    ("docs/get-started.md", "Take it away", "tests/e2e/get_started.rs"),
];

/// Page, heading, and why nobody does.
const NOT_FOLLOWED: &[(&str, &str, &str)] = &[
    ("README.md", "In a pod", "one command, which is the first of Install"),
    ("docs/get-started.md", "kind", "it needs Docker"),
    ("docs/get-started.md", "k3s", "it comes from the network"),
    ("docs/get-started.md", "Talos", "there is none"),
];

/// Headings of a page with commands below, and those.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::<(String, String)>::new();
    let (mut heading, mut fence) = ("", None);
    for line in page.lines() {
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(language);
                if language == "console" && found.last().is_none_or(|(of, _)| of != heading) {
                    found.push((heading.to_owned(), String::new()));
                }
            }
            (Some(_), Some("")) => fence = None,
            (Some("console"), _) => {
                let (_, text) = found.last_mut().unwrap();
                text.push_str(line);
                text.push('\n');
            }
            (None, None) if line.starts_with('#') => heading = line.trim_start_matches('#').trim(),
            (Some(_), _) | (None, None) => {}
        }
    }
    found
}

#[test]
fn each_command_for_a_newcomer_is_followed_or_has_a_reason() {
    let pages = ["README.md", "docs/get-started.md"];
    let there = pages.map(|page| commands(&read(page)).into_iter().map(move |(of, _)| (page, of)));
    let there: BTreeSet<_> = there.into_iter().flatten().collect();
    let listed = FOLLOWED.iter().chain(NOT_FOLLOWED).map(|(page, of, _)| (*page, (*of).to_owned()));
    assert_eq!(there, listed.collect());
    for (page, heading, file) in FOLLOWED {
        let text = read(file);
        let is_followed = if let Some((_, rest)) = text.split_once("const SECTIONS") {
            let (sections, code) = rest.split_once("];").unwrap();
            sections.contains(&format!("\"{heading}\"")) && code.contains(&format!("\"{page}\""))
        } else {
            let line = |heading: &str| text.contains(&format!(" {page} {heading}\n"));
            line(heading) || line(&format!("'{heading}'"))
        };
        assert!(is_followed, "{file}: {page}, {heading}");
    }
}

#[test]
fn the_readme_installs_as_the_page_does() {
    let of = |page: &str, heading: &str| {
        let found = commands(&read(page)).into_iter().find(|(of, _)| of == heading).unwrap().1;
        found.lines().next().unwrap().to_owned()
    };
    assert_eq!(of("README.md", "In a pod"), of("docs/get-started.md", "Install"));
}
