//! What the public CI runs of others, and what it may do: no more than is listed here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::manifests::documents;

/// Job, right, and why it has it. All else that a job may do is to read the repository.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("release/binary", "id-token", "says to the log of signatures which workflow this is"),
    ("release/binary", "attestations", "stores where the binary came from, and what is in it"),
    ("release/image", "packages", "pushes the image"),
    ("release/image", "id-token", "as above"),
    ("release/image", "attestations", "as above"),
    ("release/release", "contents", "makes the release"),
];

fn workflows() -> Vec<(String, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let name = |file: PathBuf| (file.file_stem().unwrap().to_str().unwrap().to_owned(), file);
    files.map(name).collect()
}

fn object<'v>(value: &'v Value, what: &str) -> &'v Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{what} is not set: {value}"))
}

/// Jobs of all workflows, as `workflow/job`.
fn jobs() -> Vec<(String, Value)> {
    let mut jobs = Vec::new();
    for (name, file) in workflows() {
        let workflow = documents(&file).remove(0);
        let default = object(&workflow["permissions"], "permissions of the workflow");
        assert!(default.is_empty(), "{name}: each job says itself what it may do");
        // Runs what anybody proposes, with the repository's own rights.
        assert!(workflow["on"].get("pull_request_target").is_none(), "{name}");
        let all = object(&workflow["jobs"], "jobs");
        jobs.extend(all.iter().map(|(job, value)| (format!("{name}/{job}"), value.clone())));
    }
    jobs
}

fn steps(job: &Value) -> &[Value] {
    super::manifests::list(job, "/steps")
}

#[test]
fn a_job_has_the_rights_that_are_listed_and_an_end() {
    let mut granted = Vec::new();
    for (name, job) in jobs() {
        assert!(job["timeout-minutes"].is_u64(), "{name} has no timeout-minutes");
        for (right, level) in object(&job["permissions"], &name) {
            if right == "contents" && level == "read" {
                continue;
            }
            assert_eq!(level, "write", "{name}: {right}");
            granted.push((name.clone(), right.clone()));
        }
    }
    let listed = RIGHTS.iter().map(|(job, right, _)| ((*job).to_owned(), (*right).to_owned()));
    let mut listed: Vec<_> = listed.collect();
    listed.sort();
    granted.sort();
    assert_eq!(granted, listed, "RIGHTS here has each with its reason");
}

/// A tag can be moved to something else, a commit can't.
#[test]
fn what_is_of_others_is_pinned_to_one_commit_and_names_its_version() {
    let mut pins = BTreeMap::new();
    for (name, file) in workflows() {
        let text = fs::read_to_string(file).unwrap();
        let lines = text.lines().filter_map(|line| line.trim_start().split_once("uses: "));
        for (_, what) in lines {
            let (action, comment) = what.split_once(" # ").unwrap_or((what, ""));
            let (action, commit) = action.split_once('@').unwrap_or((action, ""));
            let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            let is_version = comment.strip_prefix('v').is_some_and(|v| v.split('.').count() == 3);
            assert!(is_commit && is_version, "{name}: {what}: write owner/name@COMMIT # vX.Y.Z");
            let pin = pins.entry(action.to_owned()).or_insert_with(|| what.to_owned());
            assert_eq!(pin, what, "{name}: two versions of one");
        }
    }
    let used = jobs().iter().flat_map(|(_, job)| steps(job).to_vec()).collect::<Vec<_>>();
    let used = used.iter().filter_map(|step| step["uses"].as_str());
    let all = used.map(|what| what.split('@').next().unwrap());
    assert!(all.clone().count() > 0);
    for action in all {
        assert!(pins.contains_key(action), "{action} is used in a way that was not looked at");
    }
}

#[test]
fn no_text_of_others_becomes_a_command_and_no_token_stays() {
    for (name, job) in jobs() {
        for step in steps(&job) {
            let command = step["run"].as_str().unwrap_or_default();
            assert!(!command.contains("${{"), "{name}: give it by `env`: {command}");
            if step["uses"].as_str().is_some_and(|uses| uses.starts_with("actions/checkout@")) {
                assert_eq!(step["with"]["persist-credentials"], false, "{name}");
            }
        }
    }
}
