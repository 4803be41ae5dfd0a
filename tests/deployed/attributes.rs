//! docs/attributes.md has what a pod's author may write, and its examples are some.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nix_csi::model::{
    ACCESS_TOKENS, ATTRIBUTES, NETRC, SERVICE_ACCOUNT_TOKENS, SIZE, System, VolumeSize,
    choose_source,
};
use serde_json::Value;

use super::manifests::{parse, root};

fn page() -> String {
    fs::read_to_string(root().join("docs/attributes.md")).unwrap()
}

/// The code spans in the first cells of the table with this first head.
fn first_cells<'t>(page: &'t str, head: &str) -> BTreeSet<&'t str> {
    let (_, table) = page.split_once(&format!("| {head} |")).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn each_key_of_the_code_is_documented_and_no_other() {
    let page = page();
    let documented = first_cells(&page, "key");
    let is_system = |key: &&&str| System::parse(key).is_some();
    let others: BTreeSet<_> = documented.iter().filter(|key| !is_system(key)).copied().collect();
    assert_eq!(others, BTreeSet::from(ATTRIBUTES));
    assert!(documented.iter().any(|key| is_system(&key)));
    assert_eq!(first_cells(&page, "key of the Secret"), BTreeSet::from([ACCESS_TOKENS, NETRC]));
    assert!(first_cells(&page, "key of the kubelet's").contains(SERVICE_ACCOUNT_TOKENS));
}

#[test]
fn each_example_is_taken() {
    let page = page();
    let examples: Vec<_> = page.split("```yaml\n").skip(1).collect();
    assert!(examples.len() > 4);
    for example in examples {
        let example = example.split("```").next().unwrap();
        let attributes: Value = parse(example).remove(0)["volumeAttributes"].take();
        let attributes: BTreeMap<String, String> = serde_json::from_value(attributes).unwrap();
        for system in ["x86_64-linux", "aarch64-linux"] {
            let system = System::parse(system).unwrap();
            choose_source(&attributes, &system).unwrap_or_else(|e| panic!("{e}: {example}"));
        }
        if let Some(size) = attributes.get(SIZE) {
            VolumeSize::parse(size).unwrap();
        }
    }
}
