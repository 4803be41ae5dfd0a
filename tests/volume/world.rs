//! What these tests ask of a machine again and again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix_csi::grpc::client::{Code, Status};

use crate::compare;
use crate::lab::{Lab, Node, Volume, eventually};

/// Nothing stays for the next volume.
pub(crate) const NO_IDLE: &[&str] = &["--keep-idle", "0s"];

pub(crate) fn closure_of(lab: &Lab, root: &str) -> Vec<String> {
    lab.ok("nix-store", &["-qR", root]).lines().map(str::to_owned).collect()
}

/// Every entry of the volume's store is the store's own, and there are no others.
pub(crate) fn assert_shows(lab: &Lab, volume: &Volume, root: &str) {
    let paths = closure_of(lab, root);
    assert_shows_paths(lab, volume, &paths);
}

pub(crate) fn assert_shows_paths(lab: &Lab, volume: &Volume, paths: &[String]) {
    let shown = volume.target.join("store");
    lab.inside(|| {
        let name = |path: &String| path.strip_prefix("/nix/store/").unwrap().to_owned();
        let mut expected: Vec<_> = paths.iter().map(name).collect();
        expected.sort();
        assert_eq!(names(&shown), expected);
        for path in paths {
            compare::same(Path::new(path), &shown.join(name(path)), true);
        }
    });
}

/// Sorted names in a directory of this mount namespace.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn target_mounts(lab: &Lab) -> Vec<String> {
    lab.mounts_below(&lab.path("targets"))
}

pub(crate) fn record(lab: &Lab, volume: &Volume) -> PathBuf {
    lab.path("run/volumes").join(format!("{}.json", volume.id))
}

/// What volumes leave behind that is there: mounts, targets, records, writable layers.
pub(crate) fn leftovers(lab: &Lab) -> Vec<String> {
    let mut left = target_mounts(lab);
    left.extend(names(&lab.path("targets")));
    left.extend(names(&lab.path("run/volumes")));
    left.extend(lab.names("/nix/var/nix-csi/volumes"));
    left
}

/// Of a node with [`NO_IDLE`]: no trace of a volume, a view or a root.
pub(crate) fn assert_nothing_left(lab: &Lab) {
    assert_eq!(leftovers(lab), [""; 0]);
    let dirs = ["nix-csi/views", "nix/gcroots/nix-csi/views", "nix/gcroots/nix-csi/builds"];
    eventually("the views to go", || dirs.iter().all(|d| names_in_var(lab, d).is_empty()));
    assert_eq!(lab.mounts_below(Path::new("/nix/var")), [""; 0]);
}

fn names_in_var(lab: &Lab, dir: &str) -> Vec<String> {
    names(&lab.path("nix/var").join(dir))
}

/// `count` volumes of one source.
pub(crate) fn volumes(
    lab: &Lab,
    name: &str,
    attributes: &[(&str, &str)],
    count: usize,
) -> Vec<Volume> {
    (0..count).map(|n| lab.volume(&format!("{name}-{n}"), attributes)).collect()
}

pub(crate) async fn publish_all(node: &Node, volumes: &[Volume]) -> Vec<Result<(), Status>> {
    futures::future::join_all(volumes.iter().map(|v| node.publish(v))).await
}

pub(crate) async fn unpublish_all(node: &Node, volumes: &[Volume]) -> Vec<Result<(), Status>> {
    futures::future::join_all(volumes.iter().map(|v| node.unpublish(v))).await
}

pub(crate) fn assert_all_ok(results: &[Result<(), Status>]) {
    let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
}

pub(crate) fn code(result: Result<(), Status>) -> Code {
    result.map_or_else(|e| e.code(), |()| Code::Ok)
}

/// Polls until `done`; a test that waits in vain fails by name.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let polled = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        while !done().await {
            again.tick().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), polled).await;
    assert!(ended.is_ok(), "waited in vain for {what}");
}

/// A program in a mount namespace in which the volume is the machine's `/nix`.
pub(crate) fn in_volume(lab: &Lab, volume: &Volume, script: &str) -> String {
    let script = format!("set -e; mount --rbind {} /nix; {script}", volume.target.display());
    lab.ok("unshare", &["--mount", "--", "sh", "-c", &script])
}

/// A derivation whose builder notes that it runs and goes on when it is let.
pub(crate) struct Gate {
    dir: PathBuf,
    name: &'static str,
}

impl Gate {
    pub(crate) fn new(lab: &Lab, name: &'static str) -> Self {
        let dir = lab.path("nix/gates");
        fs::create_dir_all(&dir).unwrap();
        // Builders are other users.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        Self { dir, name }
    }

    pub(crate) fn expression(&self) -> String {
        let name = self.name;
        format!(
            r#"derivation {{
              name = "{name}";
              system = builtins.currentSystem;
              builder = "/bin/sh";
              PATH = "/bin:/usr/bin";
              args = [ "-c" ''
                echo run >> /nix/gates/{name}.runs
                while [ ! -e /nix/gates/{name}.open ]; do sleep 0.02; done
                echo {name} > $out
              '' ];
            }}"#
        )
    }

    /// How often the builder was started.
    pub(crate) fn runs(&self) -> usize {
        let runs = fs::read_to_string(self.dir.join(format!("{}.runs", self.name)));
        runs.map_or(0, |text| text.lines().count())
    }

    pub(crate) async fn started(&self) {
        until("the build to start", async || self.runs() > 0).await;
    }

    pub(crate) fn open(&self) {
        fs::write(self.dir.join(format!("{}.open", self.name)), "").unwrap();
    }

    /// Processes of the builder.
    pub(crate) fn processes(&self, lab: &Lab) -> Vec<String> {
        let needle = format!("{}.open", self.name);
        lab.processes().into_iter().filter(|line| line.contains(&needle)).collect()
    }
}
