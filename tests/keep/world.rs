//! What these tests ask of a machine again and again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix_csi::grpc::proto::admin::Kept;

use crate::lab::{Cache, Lab, Node, until};

/// Nix's programs, each noting that it runs.
pub(crate) struct Noted(PathBuf);

impl Noted {
    pub(crate) fn new(lab: &Lab) -> Self {
        let dir = lab.path("noted");
        fs::create_dir(&dir).unwrap();
        for name in ["nix", "nix-store", "nix-daemon"] {
            let real = lab.ok("sh", &["-c", &format!("command -v {name}")]);
            let notes = dir.join("runs");
            let script =
                format!("#!/bin/sh\necho {name} >> {}\nexec {real} \"$@\"\n", notes.display());
            fs::write(dir.join(name), script).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    pub(crate) fn setting(&self) -> [String; 2] {
        ["--nix".to_owned(), self.0.join("nix").to_str().unwrap().to_owned()]
    }

    pub(crate) fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.0.join("runs")).unwrap();
        runs.lines().map(str::to_owned).collect()
    }
}

/// A cache with a closure that the machine's store does not have.
pub(crate) async fn filled(lab: &Lab) -> (Cache, String) {
    let cache = lab.cache().await;
    let root = lab.unrooted(&["--arg", "paths", "5"]);
    cache.upload(lab, &root);
    collect(lab);
    assert!(!is_there(lab, &root));
    (cache, root)
}

/// A collector that has nothing to do with the node.
pub(crate) fn collect(lab: &Lab) {
    lab.ok("nix-store", &["--gc"]);
}

pub(crate) fn is_there(lab: &Lab, path: &str) -> bool {
    lab.run("ls", &[path]).status.success()
}

/// Starts with these settings, and takes unsigned paths from the cache.
pub(crate) async fn node(lab: &Lab, cache: &Cache, settings: &[&str]) -> Node {
    let substituters = cache.substituters();
    let of_cache = ["--nix-option", &substituters, "--nix-option", "require-sigs=false"];
    lab.node(&[&of_cache[..], settings].concat()).await
}

/// Waits until all that is kept is ready, and there are so many.
pub(crate) async fn ready(node: &Node, count: usize) -> Vec<Kept> {
    let mut kept = Vec::new();
    until("all to be warm", async || {
        kept = node.status().await.kept;
        kept.len() == count && kept.iter().all(|kept| kept.state == "ready")
    })
    .await;
    kept
}

/// Evaluations and look-ups that the node has had.
pub(crate) fn evaluations(node: &Node) -> u64 {
    node.metric("nixcsi_build_stage_seconds_count{stage=\"evaluating\"}").unwrap_or(0)
}
