//! Settings as a bundle shows them: each with its origin; of a file only that it is there. What looks like a secret is
//! taken out here, and what the driver knows to be one where all parts pass (`bundle::collect`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use super::clean::{Cleaner, is_secret, option};
use crate::model::HIDDEN;

/// `name`: as `--cache`. `origin`: where the values come from.
pub fn setting(
    (name, environment): (&str, Option<&str>),
    values: &[String],
    origin: &str,
) -> Value {
    let shown: Vec<_> = values.iter().map(|value| shown(value)).collect();
    let files: Vec<_> = values.iter().filter_map(|value| file(Path::new(value))).collect();
    json!({
        "name": name,
        "environment": environment,
        "origin": origin,
        "values": shown,
        "files": files,
    })
}

/// A setting of Nix's may be among them.
fn shown(value: &str) -> String {
    match option(value) {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => Cleaner::default().clean(value).into_owned(),
    }
}

/// What is at an absolute path; nothing of what is in it.
fn file(path: &Path) -> Option<Value> {
    if !path.is_absolute() {
        return None;
    }
    Some(match fs::metadata(path) {
        Ok(about) => json!({
            "path": path.display().to_string(),
            "kind": if about.is_dir() { "directory" } else if about.is_file() { "file" } else { "other" },
            "bytes": about.len(),
            "mode": format!("{:04o}", about.mode() & 0o7777),
            "owner": about.uid(),
        }),
        Err(error) => json!({ "path": path.display().to_string(), "error": error.to_string() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_shows_no_secret_and_of_a_file_that_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, "hunter2").unwrap();
        let none = dir.path().join("none");
        let values = [
            key.display().to_string(),
            none.display().to_string(),
            "x-token=hunter2".to_owned(),
            "extra-impure-env=GITHUB_TOKEN=hunter2".to_owned(),
            "substituters=https://u:hunter2@h/?a=b".to_owned(),
        ];
        let told = setting(("--x", Some("X")), &values, "argument");
        assert!(!told.to_string().contains("hunter2"), "{told}");
        assert_eq!(told["values"][2], "x-token=***");
        assert_eq!(told["values"][3], "extra-impure-env=***");
        assert_eq!(told["values"][4], "substituters=https://h/?a=b");
        assert_eq!(
            (&told["files"][0]["bytes"], &told["files"][0]["kind"]),
            (&7.into(), &"file".into())
        );
        assert!(told["files"][1]["error"].as_str().unwrap().contains("No such file"));
        assert_eq!(told["files"].as_array().unwrap().len(), 2);
    }
}
