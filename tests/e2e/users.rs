//! Pods with a user namespace of their own.

use crate::cluster::{Cluster, SOON, wait_until};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod, writable};

#[test]
fn a_pod_in_its_own_user_namespace_reads_and_runs_what_it_mounts() {
    let cluster = Cluster::get();
    let space = cluster.space("users");
    let expression = package("users", "");
    let source = ("nixExpr", expression.as_str());
    let mut own = pod("own", source, "hello");
    own["spec"]["hostUsers"] = false.into();
    let mut serving = pod("serving", source, "serve");
    serving["spec"]["hostUsers"] = false.into();
    space.apply(vec![own, serving, pod("shared", source, "hello")]);
    for name in ["own", "shared"] {
        let log = space.succeeded(name);
        assert_eq!(log.lines().count(), 3, "{log}");
    }
    space.running("serving");
    let maps = "cat /proc/$(pgrep -o -f 'bin/serve$')/uid_map";
    let map = cluster.on_node(&["sh", "-c", maps]);
    let outside = map.split_whitespace().nth(1).unwrap().to_owned();
    assert_ne!(outside, "0", "it is in a user namespace: {map}");
    drop(space);
    nothing_left(&cluster);
}

#[test]
fn a_writable_volume_of_such_a_pod_is_refused_with_the_way_out() {
    let cluster = Cluster::get();
    let space = cluster.space("users");
    let mut own = writable(pod("own", ("nixExpr", &package("users", "")), "hello"));
    own["spec"]["hostUsers"] = false.into();
    space.apply(vec![own]);
    wait_until("the refusal", SOON, || {
        let said = space.why("own");
        said.contains("InvalidArgument") && said.contains("readOnly: true")
    });
    drop(space);
    nothing_left(&cluster);
}
