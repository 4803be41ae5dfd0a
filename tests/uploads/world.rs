//! What these tests ask of a machine again and again.

use serde_json::Value;

use crate::lab::{Lab, Node, Volume, until};

/// Where the node has its records and its roots.
pub(crate) const RECORDS: &str = "/nix/var/nix-csi/uploads";
pub(crate) const ROOTS: &str = "/nix/var/nix/gcroots/nix-csi/uploads";

/// A volume of two paths that have to be built; `bytes` of them are random.
pub(crate) fn buildable(lab: &Lab, name: &str, bytes: usize) -> Volume {
    let expression = format!(
        r#"let
          make = name: needs: derivation {{
            inherit name needs;
            system = builtins.currentSystem;
            builder = "/bin/sh";
            PATH = "/bin:/usr/bin";
            args = [ "-c" "mkdir $out; head -c {bytes} /dev/urandom > $out/data; echo $needs > $out/needs" ];
          }};
        in make "{name}" (make "{name}-dependency" "nothing")"#
    );
    lab.volume(name, &[("nixExpr", &expression)])
}

/// The closure of what is mounted, sorted.
pub(crate) fn closure(lab: &Lab, volume: &Volume) -> Vec<String> {
    let result = volume.target.join("var/result");
    let root = lab.inside(|| std::fs::read_link(&result).unwrap());
    let root = root.file_name().unwrap().to_str().unwrap().to_owned();
    let list = lab.ok("nix-store", &["-qR", &format!("/nix/store/{root}")]);
    let mut paths: Vec<_> = list.lines().map(str::to_owned).collect();
    paths.sort();
    paths
}

/// What its root was built from, and all that is needed to build it again, sorted.
pub(crate) fn derivations(lab: &Lab, root: &str) -> (String, Vec<String>) {
    let derivation = lab.ok("nix-store", &["-qd", root]);
    let list = lab.ok("nix-store", &["-qR", &derivation]);
    let mut paths: Vec<_> = list.lines().map(str::to_owned).collect();
    paths.sort();
    (derivation, paths)
}

/// A collector that takes derivations of what is alive, too.
pub(crate) fn collect(lab: &Lab) {
    lab.ok("nix-store", &["--gc", "--option", "keep-derivations", "false"]);
}

/// Its root.
pub(crate) fn root<'a>(paths: &'a [String], name: &str) -> &'a str {
    paths.iter().find(|path| path.ends_with(&format!("-{name}"))).unwrap()
}

/// `nix-csi uploads …`: whether it succeeded, and what it said.
pub(crate) fn uploads(lab: &Lab, node: &Node, args: &[&str]) -> (bool, String) {
    let mut command = lab.command(env!("CARGO_BIN_EXE_nix-csi"));
    command.arg("uploads").args(args).arg("--admin-endpoint").arg(&node.admin);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

pub(crate) fn listed(lab: &Lab, node: &Node) -> Value {
    let (ok, text) = uploads(lab, node, &["-o", "json"]);
    assert!(ok, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Waits until there is nothing to upload, and nothing of it left.
pub(crate) async fn all_sent(lab: &Lab, node: &Node) {
    until("all to be uploaded", async || {
        let list = listed(lab, node);
        list["waiting"] == 0 && list["sending"] == 0 && list["dead"] == 0
    })
    .await;
    until("the queue's files to go", async || {
        lab.names(RECORDS).is_empty() && lab.names(ROOTS).is_empty()
    })
    .await;
}

/// Waits for an upload's error.
pub(crate) async fn error(lab: &Lab, node: &Node) -> String {
    let mut error = String::new();
    until("an upload to fail", async || {
        let list = listed(lab, node);
        error = list["uploads"][0]["lastError"].as_str().unwrap_or_default().to_owned();
        !error.is_empty()
    })
    .await;
    error
}
