//! A Secret that a volume names, as the kubelet hands it over.

use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, in_driver, wait_until};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod};

const WORD: &str = "hunter2hunter2";

fn secret(name: &str, key: &str, value: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value } })
}

fn with(mut pod: Value, secret: &str) -> Value {
    pod["spec"]["volumes"][0]["csi"]["nodePublishSecretRef"] = json!({ "name": secret });
    pod
}

#[test]
fn a_volumes_secret_reaches_the_driver_and_is_shown_nowhere() {
    let cluster = Cluster::get();
    let space = cluster.space("secrets");
    let expression = package("secrets", "");
    let serve = |name: &str| pod(name, ("nixExpr", &expression), "serve");
    space.apply(vec![
        secret("good", "netrc", &format!("machine forge.example login ci password {WORD}")),
        secret("bad", "token", WORD),
        with(serve("opened"), "good"),
        with(serve("refused"), "bad"),
    ]);
    space.running("opened");
    wait_until("the refusal", SOON, || {
        let said = space.why("refused");
        assert!(!said.contains(WORD), "{said}");
        said.contains("secrets (nodePublishSecretRef) have the key \"token\"")
    });
    let exec = |script: &str| cluster.kubectl(&in_driver(&["sh", "-euc", script]));
    // The record of the mounted one is there, and has nothing of it.
    let found = exec(&format!(
        "ls /run/nix-csi/volumes/*.json >/dev/null; grep -rl {WORD} /run/nix-csi /nix/var/nix-csi || true"
    ));
    assert_eq!(found.trim(), "");
    let log =
        cluster.kubectl(&["-n", "nix-csi", "logs", "daemonset/nix-csi-node", "-c", "nix-csi"]);
    assert!(!log.contains(WORD));
    drop(space);
    nothing_left(&cluster);
}
