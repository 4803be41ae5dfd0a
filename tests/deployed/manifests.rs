//! `deploy/` as `kubectl kustomize` renders it. What of kustomize `deploy/` does not use is refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The components below `deploy/options`, sorted.
pub(crate) fn options() -> Vec<String> {
    let entries = fs::read_dir(deploy().join("options")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All objects, as with that component.
pub(crate) fn render(option: Option<&str>) -> Vec<Value> {
    let mut objects = Vec::new();
    build(&deploy(), &mut objects);
    if let Some(option) = option {
        build(&deploy().join("options").join(option), &mut objects);
    }
    objects
}

pub(crate) fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn build(dir: &Path, objects: &mut Vec<Value>) {
    const KNOWN: [&str; 4] = ["apiVersion", "kind", "resources", "patches"];
    let kustomization = documents(&dir.join("kustomization.yaml")).remove(0);
    for field in kustomization.as_object().unwrap().keys() {
        assert!(KNOWN.contains(&&**field), "{}: {field} is not rendered here", dir.display());
    }
    for resource in list(&kustomization, "/resources") {
        objects.extend(documents(&dir.join(resource.as_str().unwrap())));
    }
    for patch in list(&kustomization, "/patches") {
        let (kind, name) = (text(patch, "/target/kind"), text(patch, "/target/name"));
        let is_it = |o: &&mut Value| text(o, "/kind") == kind && text(o, "/metadata/name") == name;
        let target = objects.iter_mut().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"));
        match serde_saphyr::from_str(text(patch, "/patch")).unwrap() {
            Value::Array(operations) => {
                for operation in &operations {
                    add(target, operation);
                }
            }
            patch => merge(target, patch, ""),
        }
    }
}

/// One operation of RFC 6902.
fn add(target: &mut Value, operation: &Value) {
    assert_eq!(text(operation, "/op"), "add", "{operation}");
    let list = text(operation, "/path").strip_suffix("/-").expect("appends to a list");
    let list = target.pointer_mut(list).and_then(Value::as_array_mut).unwrap();
    list.push(operation["value"].clone());
}

/// A strategic merge patch: maps by their names, lists of objects by what tells their elements apart.
fn merge(target: &mut Value, patch: Value, field: &str) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(target.entry(name.clone()).or_insert(Value::Null), value, &name);
            }
        }
        (Value::Array(target), Value::Array(patch)) => {
            let key = match field {
                "containers" | "initContainers" | "volumes" | "env" => "name",
                "volumeMounts" => "mountPath",
                "ports" => "containerPort",
                _ => panic!("how {field} is merged is not known here"),
            };
            for element in patch {
                let at = target.iter().position(|other| other[key] == element[key]);
                match (at, text(&element, "/$patch")) {
                    (Some(at), "delete") => drop(target.remove(at)),
                    (Some(at), "") => merge(&mut target[at], element, ""),
                    (None, "") => target.push(element),
                    (_, word) => panic!("$patch: {word} of {field} is not known here"),
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

#[test]
fn a_patch_adds_changes_and_takes_away() {
    let mut pod: Value = serde_saphyr::from_str(
        "containers: [{name: a, env: [{name: X, value: '1'}, {name: Y}], ports: [{containerPort: 1}]}]",
    )
    .unwrap();
    let patch = "
        containers:
          - name: a
            env: [{name: X, value: '2'}, {name: Y, $patch: delete}, {name: Z}]
            volumeMounts: [{name: v, mountPath: /v}]
          - name: b
        volumes: [{name: v}]";
    merge(&mut pod, serde_saphyr::from_str(patch).unwrap(), "");
    let expected: Value = serde_saphyr::from_str(
        "
        containers:
          - name: a
            env: [{name: X, value: '2'}, {name: Z}]
            ports: [{containerPort: 1}]
            volumeMounts: [{name: v, mountPath: /v}]
          - {name: b}
        volumes: [{name: v}]",
    )
    .unwrap();
    assert_eq!(pod, expected);
}
