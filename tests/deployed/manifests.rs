//! `deploy/chart` as Helm renders it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::installed::installed;

const VALUES: &str = "-values.yaml";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/chart")
}

/// The program; the first who asks installs it.
fn helm() -> &'static str {
    static HELM: OnceLock<String> = OnceLock::new();
    HELM.get_or_init(|| installed("install-helm.sh"))
}

/// A file of the project.
pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// What a Helm that succeeds says, or why it does not.
pub(crate) fn run_helm(args: &[&str]) -> Result<String, String> {
    let output = Command::new(helm()).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The chart's text, with more arguments of `helm template`.
pub(crate) fn template(args: &[&str]) -> Result<String, String> {
    let chart = chart();
    let usual = ["template", "nix-csi", chart.to_str().unwrap(), "--namespace", "nix-csi"];
    run_helm(&[&usual[..], args].concat())
}

pub(crate) fn parse(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// The file of values of an option.
pub(crate) fn values(option: &str) -> String {
    chart().join("ci").join(format!("{option}{VALUES}")).to_str().unwrap().to_owned()
}

/// What `deploy/chart/ci` has values of, sorted.
pub(crate) fn options() -> Vec<String> {
    let entries = fs::read_dir(chart().join("ci")).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(VALUES)
            .unwrap_or_else(|| panic!("{name} is no file of values"))
            .to_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

/// All objects, as with that option.
pub(crate) fn render(option: Option<&str>) -> Vec<Value> {
    let text = match option {
        Some(option) => template(&["--values", &values(option)]),
        None => template(&[]),
    };
    parse(&text.unwrap())
}

pub(crate) fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The files below a directory whose names end so.
pub(crate) fn below(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(below(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found
}

pub(crate) fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}
