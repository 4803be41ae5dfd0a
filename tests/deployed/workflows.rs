//! What the public CI runs of others, and what it may do: no more than is listed here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::manifests::{documents, list, root};

/// Job, right, and why it has it. All else that a job may do is to read the repository.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("release/binary", "id-token", "says to the log of signatures which workflow this is"),
    ("release/binary", "attestations", "stores where the binary came from, and what is in it"),
    ("release/image", "packages", "pushes the image of one architecture"),
    ("release/image", "id-token", "as above"),
    ("release/image", "attestations", "as above"),
    ("release/manifest", "packages", "pushes the name that both images have"),
    ("release/manifest", "id-token", "as above"),
    ("release/manifest", "attestations", "as above"),
    ("release/chart", "packages", "pushes the chart"),
    ("release/chart", "id-token", "as above"),
    ("release/chart", "attestations", "as above"),
    ("release/release", "contents", "makes the release"),
];

fn workflows() -> Vec<(String, PathBuf)> {
    let files =
        fs::read_dir(root().join(".github/workflows")).unwrap().map(|entry| entry.unwrap().path());
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
    list(job, "/steps")
}

/// What the jobs whose names begin so run.
fn commands(of: &str) -> Vec<(String, String)> {
    let jobs = jobs().into_iter().filter(|(name, _)| name.starts_with(of));
    let run = |step: &Value| step["run"].as_str().map(str::to_owned);
    let all = jobs.flat_map(|(name, job)| {
        steps(&job).iter().filter_map(run).map(|it| (name.clone(), it)).collect::<Vec<_>>()
    });
    all.collect()
}

/// What a target of the Makefile runs.
fn recipe(target: &str) -> Vec<&'static str> {
    let makefile = include_str!("../../Makefile");
    let rule = format!("{target}:");
    let mut lines = makefile.lines().skip_while(|line| !line.starts_with(&rule)).skip(1);
    let all: Vec<_> = lines.by_ref().map_while(|line| line.strip_prefix('\t')).collect();
    assert!(!all.is_empty(), "make {target}: the Makefile has no such target");
    all
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

/// Anybody proposes changes, also of what a workflow runs.
#[test]
fn what_anybody_can_start_has_no_rights_and_no_secrets() {
    let mut proposed = Vec::new();
    for (name, file) in workflows() {
        let on = &documents(&file).remove(0)["on"];
        if !on.to_string().contains("\"pull_request\"") {
            continue;
        }
        let text = fs::read_to_string(file).unwrap();
        for secret in ["secrets", "github.token", "GITHUB_TOKEN"] {
            assert!(!text.contains(secret), "{name} runs on pull_request and has {secret}");
        }
        for (job, right, _) in RIGHTS {
            let of_it = job.split('/').next() == Some(&name);
            assert!(!of_it, "{job} runs on pull_request and has {right}");
        }
        proposed.push(name);
    }
    proposed.sort();
    assert_eq!(proposed, ["audit", "ci"]);
}

#[test]
fn each_program_of_ours_is_there_and_can_be_run() {
    let mut found = 0;
    for (name, command) in commands("") {
        let is_end = |c: char| c.is_whitespace() || "\"'()$;|&<>".contains(c);
        let words: Vec<_> = command.split(is_end).filter(|word| !word.is_empty()).collect();
        for program in words.iter().filter(|w| w.starts_with("scripts/") || w.starts_with(".ci/")) {
            let metadata = fs::metadata(root().join(program));
            let mode = metadata.unwrap_or_else(|e| panic!("{name}: {program}: {e}")).permissions();
            assert_eq!(mode.mode() & 0o111, 0o111, "{name}: {program} is not executable");
            found += 1;
        }
        for pair in words.windows(2).filter(|pair| pair[0] == "make") {
            recipe(pair[1]);
            found += 1;
        }
    }
    assert!(found > 10, "only {found} programs are run");
}

/// A branch asks for this one.
#[test]
fn one_check_needs_all_others() {
    let jobs: BTreeMap<_, _> = jobs().into_iter().collect();
    let last = &jobs["ci/ci"];
    let needs = list(last, "/needs").iter().map(|need| format!("ci/{}", need.as_str().unwrap()));
    let mut needs: Vec<_> = needs.collect();
    needs.sort();
    let others = jobs.keys().filter(|job| job.starts_with("ci/") && *job != "ci/ci");
    assert_eq!(needs, others.cloned().collect::<Vec<_>>());
    // A check that is skipped, as after a failure, counts as passed.
    assert_eq!(last["if"], "always()");
    let step = &steps(last)[0];
    assert_eq!(step["env"]["NEEDS"], "${{ toJSON(needs) }}");
    let expected = r#"jq --exit-status 'all(.[]; .result == "success")' <<<"$NEEDS""#;
    assert_eq!(step["run"].as_str().unwrap().trim(), expected);
    for (name, job) in &jobs {
        assert!(job.get("continue-on-error").is_none(), "{name} passes whatever happens");
    }
}

#[test]
fn each_stage_of_a_clean_clone_is_a_job() {
    let stages = include_str!("../../.ci/run").lines().filter_map(|l| l.strip_prefix("stage "));
    let mut wanted = Vec::new();
    for stage in stages {
        let command = stage.splitn(3, ' ').nth(2).unwrap();
        if command == "make check" {
            let parts = recipe("check").into_iter().map(|line| line.rsplit(' ').next().unwrap());
            wanted.extend(parts.map(|part| format!("make {part}")));
        } else {
            wanted.push(command.to_owned());
        }
    }
    assert!(wanted.len() > 3, "{wanted:?}");
    let all = commands("ci/");
    for command in wanted {
        let runs =
            |run: &String| run.trim() == command || run.trim().ends_with(&format!(" {command}"));
        assert!(all.iter().any(|(_, run)| runs(run)), "ci.yml does not run {command}");
    }
}
