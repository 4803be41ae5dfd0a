//! A policy in a ConfigMap: two namespaces, of which one may what the other may not.

use serde_json::json;

use crate::cluster::{Cluster, SOON, wait_until};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod};
use tokio::time::Instant;

/// Ends with a policy that allows everything: one that is gone leaves the last one in force.
struct Written<'a>(&'a Cluster);

impl Written<'_> {
    fn write(&self, text: &str) {
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
    let counts = "nix-csi policy explain --namespace x --expr 1 >/dev/null 2>&1 || echo refused";
    wait_until("the policy to count", SOON, || {
        let exec = ["-n", "nix-csi", "exec", "daemonset/nix-csi-node", "--", "sh", "-c", counts];
        cluster.ask(&exec).is_some_and(|said| said.contains("refused"))
    });
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
