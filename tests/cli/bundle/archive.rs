//! Reads a bundle, and says what is to be in it.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;

/// Where an Admin service does not know a call.
pub const UNKNOWN: &str = "missing: what answers here does not know this call: it is a cache, or another version of nix-csi";
/// What every bundle has.
pub const MACHINE: [&str; 8] = [
    "MANIFEST",
    "disk.txt",
    "gc-dry-run.txt",
    "limits.txt",
    "mountinfo.txt",
    "mounts.txt",
    "os-release.txt",
    "processes.txt",
];
pub const DRIVER: [&str; 7] = [
    "gc.txt",
    "health.txt",
    "log.txt",
    "metrics.txt",
    "nix.conf.txt",
    "settings.json",
    "versions.txt",
];
pub const NODE: [&str; 8] = [
    "builds.json",
    "builds.txt",
    "kept.json",
    "policy.txt",
    "status.json",
    "status.txt",
    "uploads.json",
    "uploads.txt",
];

pub type Files = BTreeMap<String, String>;

pub fn files(archive: &[u8]) -> Files {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let file = |entry: Result<tar::Entry<'_, _>, _>| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name.strip_prefix("nix-csi-bundle/").unwrap().to_owned(), text)
    };
    archive.entries().unwrap().map(file).collect()
}

/// What the manifest says of each file, and its head.
pub fn manifest(files: &Files) -> (BTreeMap<&str, &str>, &str) {
    let (head, table) = files["MANIFEST"].split_once("\n\nfile\tbytes\tsaid\n").unwrap();
    let mut said = BTreeMap::new();
    for line in table.lines() {
        let [name, bytes, what] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(files.get(name).map_or("-".into(), |text| text.len().to_string()), bytes);
        said.insert(name, what);
    }
    let listed = files.keys().filter(|name| *name != "MANIFEST");
    assert!(listed.clone().all(|name| said.contains_key(&**name)), "{}", files["MANIFEST"]);
    (said, head)
}

pub fn names(files: &Files) -> Vec<&str> {
    files.keys().map(|name| &**name).collect()
}

pub fn sorted(parts: &[&[&'static str]]) -> Vec<&'static str> {
    let mut all = parts.concat();
    all.sort_unstable();
    all
}
