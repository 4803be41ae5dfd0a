//! What a release is refused for.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::manifests::{read, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const CHART: &str = "deploy/chart/Chart.yaml";

/// The version that the project in that directory is released with, or why it is not.
fn version(project: &Path, tag: &str) -> Result<String, String> {
    let script = project.join("scripts/release-version.sh");
    let output = Command::new(script).arg(tag).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn a_tag_is_the_version() {
    assert_eq!(version(root(), &format!("v{VERSION}")), Ok(VERSION.to_owned()));
    for tag in [VERSION.to_owned(), format!("v{VERSION}0"), format!("v{VERSION}-rc1")] {
        let refused = version(root(), &tag).unwrap_err();
        let names = [format!("the tag is {tag},"), format!("Cargo.toml says {VERSION},")];
        for name in names {
            assert!(refused.contains(&name), "{refused}");
        }
    }
}

#[test]
fn a_chart_of_another_version_is_refused() {
    for (key, says) in
        [("version", "Chart.yaml version 9.8.7,"), ("appVersion", "appVersion 9.8.7")]
    {
        let dir = tempfile::tempdir().unwrap();
        for file in ["Cargo.toml", CHART, "scripts/release-version.sh"] {
            let copy = dir.path().join(file);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(root().join(file), copy).unwrap();
        }
        let tag = format!("v{VERSION}");
        assert_eq!(version(dir.path(), &tag), Ok(VERSION.to_owned()));
        let chart = read(CHART);
        let other = chart.replace(&format!("\n{key}: {VERSION}\n"), &format!("\n{key}: 9.8.7\n"));
        fs::write(dir.path().join(CHART), other).unwrap();
        let refused = version(dir.path(), &tag).unwrap_err();
        assert!(
            refused.contains(&format!("the tag is {tag},")) && refused.contains(says),
            "{refused}"
        );
    }
}
