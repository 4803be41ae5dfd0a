//! What `kubectl describe pod` tells.

use crate::cluster::{Cluster, LONG, Space, wait};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod, slow_package};

/// The lines about our Events once there is one of each of these reasons.
fn described(space: &Space<'_>, pod: &str, reasons: &[&str]) -> Vec<String> {
    wait(&format!("{reasons:?} on {pod}"), LONG, || {
        let lines: Vec<_> = space.why(pod).lines().map(str::to_owned).collect();
        let has = |reason: &&str| lines.iter().any(|line| line.contains(*reason));
        reasons
            .iter()
            .all(has)
            .then(|| lines.into_iter().filter(|line| line.contains(" Store")).collect())
    })
}

fn only<'a>(lines: &'a [String], reason: &str) -> &'a str {
    let mut found = lines.iter().filter(|line| line.contains(reason));
    let line = found.next().unwrap_or_else(|| panic!("no {reason} in {lines:#?}"));
    assert!(found.next().is_none(), "more than one {reason}: {lines:#?}");
    line
}

#[test]
fn a_slow_build_and_its_mount_are_told() {
    let cluster = Cluster::get();
    let space = cluster.space("told");
    space.apply(vec![pod("slow", ("nixExpr", &slow_package("told", 20)), "serve")]);
    let lines = described(&space, "slow", &["StoreBuilding", "StoreMounted"]);
    let progress: Vec<_> = lines.iter().filter(|line| line.contains("StoreBuilding")).collect();
    // Three seconds after it began, and fifteen later; the build takes twenty.
    assert_eq!(progress.len(), 2, "{lines:#?}");
    assert!(progress[1].contains("volume nix: fetching and building: "), "{lines:#?}");
    assert!(progress[1].contains(" derivations, now "), "{lines:#?}");
    let mounted = only(&lines, "StoreMounted");
    assert!(mounted.contains("volume nix: mounted /nix/store/"), "{mounted}");
    assert!(mounted.contains("-told of nixExpr: 2 store paths, "), "{mounted}");
    assert!(mounted.contains(", built, in 2"), "{mounted}");

    // The next pod has nothing to wait for.
    space.apply(vec![pod("warm", ("nixExpr", &slow_package("told", 20)), "serve")]);
    space.running("warm");
    let lines = described(&space, "warm", &["StoreMounted"]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("was in the node's store, in "), "{lines:#?}");
    drop(space);
    nothing_left(&cluster);
}

#[test]
fn a_failing_build_is_told_with_its_cause_once() {
    let cluster = Cluster::get();
    let space = cluster.space("failing");
    let failing = package("failing", "echo this is the cause; exit 3");
    space.apply(vec![pod("bad", ("nixExpr", &failing), "hello")]);
    let repeated = |line: &String| line.contains("StoreFailed") && line.contains("(x");
    // The kubelet tries again and again; the Event stays one.
    let lines = wait("a repeated failure", LONG, || {
        let lines = described(&space, "bad", &["StoreFailed"]);
        lines.iter().any(repeated).then_some(lines)
    });
    let failed = only(&lines, "StoreFailed");
    assert!(failed.contains("Warning"), "{failed}");
    assert!(failed.contains("volume nix: build of "), "{failed}");
    let whole = space.why("bad");
    assert!(whole.contains("this is the cause"), "{whole}");
    // The kubelet's own Event has the code and the same words.
    assert!(
        whole.contains("FailedMount") && whole.contains("code = FailedPrecondition"),
        "{whole}"
    );
    drop(space);
    nothing_left(&cluster);
}
