//! A policy in a ConfigMap: two namespaces, of which one may what the other may not.

use serde_json::json;

use crate::cluster::{Cluster, SOON, in_driver, wait_until};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod};
use tokio::time::Instant;

/// Ends with a policy that allows everything: one that is gone leaves the last one in force.
pub(crate) struct Written<'a>(pub(crate) &'a Cluster);

impl Written<'_> {
    pub(crate) fn write(&self, text: &str) {
        self.0.apply(&[json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "nix-csi-policy", "namespace": "nix-csi" },
            "data": { "policy.yaml": text },
        })]);
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.write("preset: open");
    }
}

/// Waits until the node refuses it.
fn counts(cluster: &Cluster, explain: &str) {
    let script = format!("{explain} >/dev/null 2>&1 || echo refused");
    wait_until("the policy to count", SOON, || {
        cluster.ask(&on_node(&script)).is_some_and(|said| said.contains("refused"))
    });
}

/// As the cluster's operator.
fn on_node(script: &str) -> Vec<&str> {
    in_driver(&["sh", "-euc", script])
}

#[test]
fn a_changed_policy_counts_within_seconds_and_what_runs_goes_on() {
    let cluster = Cluster::get();
    let (ours, theirs) = (cluster.space("policy"), cluster.space("policy"));
    let expression = package("policy", "");
    let serve = |name: &str| pod(name, ("nixExpr", &expression), "serve");
    // Without a policy both may.
    ours.apply(vec![serve("before")]);
    theirs.apply(vec![serve("before")]);
    ours.running("before");
    theirs.running("before");

    let written = Written(&cluster);
    written.write(&format!("preset: strict\nnamespaces: {{{}: {{nixExpr: true}}}}", ours.name));
    let began = Instant::now();
    counts(&cluster, "nix-csi policy explain --namespace x --expr 1");
    println!("a policy counted after {:.1} s", began.elapsed().as_secs_f64());
    ours.apply(vec![serve("after")]);
    theirs.apply(vec![serve("after")]);
    ours.running("after");
    wait_until("the refusal", SOON, || {
        let said = theirs.why("after");
        said.contains("PermissionDenied")
            && said.contains(&format!("refuses this to namespace {}", theirs.name))
            && said.contains("preset strict, nixExpr")
    });
    assert_eq!(theirs.phase("before"), "Running");
    assert_eq!(theirs.phase("after"), "Pending");
    // The same pod starts once it may.
    written.write("preset: open");
    theirs.running("after");
    drop((ours, theirs));
    nothing_left(&cluster);
}

#[test]
fn what_a_namespace_built_is_shown_to_no_other_until_it_is_signed() {
    let cluster = Cluster::get();
    let (ours, theirs) = (cluster.space("private"), cluster.space("private"));
    // It writes where the image lets it, and its key goes with the test.
    let key = "HOME=/tmp nix --extra-experimental-features nix-command key";
    let made = format!(
        "{key} generate-secret --key-name e2e-1 > /tmp/e2e.key; {key} convert-secret-to-public < /tmp/e2e.key"
    );
    let public = cluster.kubectl(&on_node(&made));
    let written = Written(&cluster);
    written.write(&format!(
        "preset: strict\ndefault: {{publicKeys: [\"{}\"]}}\nnamespaces: {{{}: {{nixExpr: true}}}}",
        public.trim(),
        ours.name
    ));
    counts(&cluster, "nix-csi policy explain --namespace x --expr 1");
    let expression = package("private", "");
    ours.apply(vec![pod("built", ("nixExpr", &expression), "hello")]);
    let shown = ours.succeeded("built");
    let name = shown.lines().find(|line| line.ends_with("-private")).unwrap();
    let path = format!("/nix/store/{name}");
    let named = || pod("named", ("storePath", &path), "serve");
    ours.apply(vec![named()]);
    theirs.apply(vec![named()]);
    ours.running("named");
    wait_until("the refusal", SOON, || {
        let said = theirs.why("named");
        said.contains("PermissionDenied")
            && said.contains("preset strict, storePath")
            && said.contains("is neither public (it has no signature of e2e-1)")
    });
    assert_eq!(theirs.phase("named"), "Pending");
    let sign = format!(
        "HOME=/tmp nix --extra-experimental-features nix-command store sign -k /tmp/e2e.key {path}; rm /tmp/e2e.key"
    );
    cluster.kubectl(&on_node(&sign));
    theirs.running("named");
    drop((ours, theirs, written));
    nothing_left(&cluster);
}
