//! Pods with inline volumes, in an image that has nothing.

use crate::cluster::{Cluster, Space, in_driver};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod, writable};
use crate::web::{Web, tarball};

fn said(space: &Space<'_>, name: &str) -> String {
    let log = space.succeeded(name);
    assert!(log.contains("hello from"), "{log}");
    log
}

/// The store path that a mounted pod's source resolved to.
pub(crate) fn root_of(cluster: &Cluster, pod: &str) -> String {
    let status = cluster.kubectl(&in_driver(&["nix-csi", "status", "-o", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let volumes = status["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["pod"] == pod).unwrap();
    volume["root"].as_str().unwrap().to_owned()
}

#[test]
fn every_source_runs_read_only_and_writable() {
    let cluster = Cluster::get();
    let space = cluster.space("pods");
    let expression = package("sources", "");
    space.apply(vec![pod("holder", ("nixExpr", &expression), "serve")]);
    space.running("holder");
    let path = root_of(&cluster, "holder");
    let flake = serve_flake(&cluster, &package("flake", ""));
    let sources = [
        ("nixexpr", "nixExpr", &expression),
        ("storepath", "storePath", &path),
        ("flakeref", "flakeRef", &flake),
    ];
    for (name, key, value) in sources {
        let (ro, rw) = (format!("{name}-ro"), format!("{name}-rw"));
        let source = (key, value.as_str());
        space.apply(vec![pod(&ro, source, "hello"), writable(pod(&rw, source, "hello"))]);
    }
    for (name, ..) in sources {
        let logs = [said(&space, &format!("{name}-ro")), said(&space, &format!("{name}-rw"))];
        for log in logs {
            // The closure and nothing else: the package, its busybox, and the line it says.
            assert_eq!(log.lines().count(), 3, "{log}");
        }
    }
    drop(space);
    nothing_left(&cluster);
}

/// What one pod writes another of the same closure does not see.
#[test]
fn a_writable_volume_is_the_pods_own() {
    let cluster = Cluster::get();
    let space = cluster.space("writable");
    let expression = package("writable", "");
    let writer = |name| writable(pod(name, ("nixExpr", &expression), "serve"));
    space.apply(vec![writer("writer"), writer("other")]);
    space.running("writer");
    space.running("other");
    let busybox = |pod: &str, args: &[&str]| {
        let listing = space.kubectl(&["exec", pod, "--", "/nix/var/result/bin/hello"]);
        let dir = listing.lines().find(|line| line.ends_with("-busybox")).unwrap().to_owned();
        let program = format!("/nix/store/{dir}/bin/busybox");
        space.ask(&[&["exec", pod, "--", &program], args].concat())
    };
    assert!(busybox("writer", &["touch", "/nix/store/mine"]).is_some());
    assert!(busybox("writer", &["ls", "/nix/store/mine"]).is_some());
    assert!(busybox("other", &["ls", "/nix/store/mine"]).is_none());
    drop(space);
    nothing_left(&cluster);
}

/// A container's `/dev` has what there was when it started, and needs more than that.
#[test]
fn a_volume_with_a_size_is_full_for_its_own_pod() {
    let cluster = Cluster::get();
    let space = cluster.space("size");
    let expression = package("size", "");
    let names: Vec<_> = (0..12).map(|n| format!("sized-{n}")).collect();
    let pods = names.iter().map(|name| {
        let mut pod = writable(pod(name, ("nixExpr", &expression), "serve"));
        pod["spec"]["volumes"][0]["csi"]["volumeAttributes"]["size"] = "64Mi".into();
        pod
    });
    space.apply(pods.collect());
    for name in &names {
        space.running(name);
    }
    let listing = space.kubectl(&["exec", &names[0], "--", "/nix/var/result/bin/hello"]);
    let dir = listing.lines().find(|line| line.ends_with("-busybox")).unwrap();
    let busybox = format!("/nix/store/{dir}/bin/busybox");
    let write = |pod: &str, megabytes: &str| {
        let count = format!("count={megabytes}");
        let dd = ["dd", "if=/dev/zero", "of=/nix/big", "bs=1M", &count];
        space.ask(&[&["exec", pod, "--", &busybox], &dd[..]].concat())
    };
    assert!(write(&names[0], "100").is_none());
    let said = space.kubectl(&["exec", &names[0], "--", &busybox, "du", "-m", "/nix/big"]);
    let size: u32 = said.split_whitespace().next().unwrap().parse().unwrap();
    assert!((50..64).contains(&size), "{said}");
    for name in &names[1..] {
        assert!(write(name, "40").is_some(), "{name}");
    }
    assert!(write(&names[0], "40").is_some(), "a smaller file in its place");
    drop(space);
    nothing_left(&cluster);
    let loops = "cat /sys/block/loop*/loop/backing_file 2>/dev/null || true";
    let files = cluster.on_node(&["sh", "-c", loops]);
    assert!(!files.contains("/nix-csi/volumes/"), "{files}");
}

/// What a container's own `readOnly` and `subPath` do; docs/pods.md says what to make of it.
#[test]
fn a_container_may_mount_a_part_of_it_and_read_only() {
    let cluster = Cluster::get();
    let space = cluster.space("parts");
    let expression = package("parts", "");
    let mut mixed = writable(pod("mixed", ("nixExpr", &expression), "serve"));
    let containers = mixed["spec"]["containers"].as_array_mut().unwrap();
    let mut reader = containers[0].clone();
    reader["name"] = "reader".into();
    reader["volumeMounts"][0]["readOnly"] = true.into();
    let mut part = containers[0].clone();
    part["name"] = "part".into();
    let db = serde_json::json!({ "name": "nix", "mountPath": "/part", "subPath": "var/nix" });
    part["volumeMounts"].as_array_mut().unwrap().push(db);
    containers.extend([reader, part]);
    space.apply(vec![mixed]);
    space.running("mixed");
    let root = root_of(&cluster, "mixed");
    let listing =
        space.kubectl(&["exec", "mixed", "-c", "main", "--", &format!("{root}/bin/hello")]);
    let dir = listing.lines().find(|line| line.ends_with("-busybox")).unwrap();
    let busybox = format!("/nix/store/{dir}/bin/busybox");
    let run = |container: &str, args: &[&str]| {
        space.ask(&[&["exec", "mixed", "-c", container, "--", &busybox], args].concat())
    };
    assert!(run("reader", &["touch", "/nix/x"]).is_none(), "the container's mount is read-only");
    assert!(run("main", &["touch", "/nix/x"]).is_some(), "the volume is not");
    assert!(run("reader", &["ls", "/nix/x"]).is_some(), "and what one writes the other sees");
    let database = run("part", &["ls", "/part/db"]).unwrap();
    assert!(database.contains("db.sqlite"), "{database}");
    drop(space);
    nothing_left(&cluster);
}

/// A flake as a tarball, served where the driver's pod finds it.
fn serve_flake(cluster: &Cluster, expression: &str) -> String {
    let system = format!("\"{}-linux\"", std::env::consts::ARCH);
    let text = expression.replace("builtins.currentSystem", &system);
    let dir = tempfile::tempdir().unwrap();
    let flake = dir.path().join("flake");
    std::fs::create_dir(&flake).unwrap();
    std::fs::write(flake.join("flake.nix"), format!("{{ outputs = _: {{ it = {text}; }}; }}"))
        .unwrap();
    format!("{}#it", Web::start(cluster).serve("flake.tar.gz", tarball(&flake)))
}
