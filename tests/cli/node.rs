//! A node that can't start says why, in one line.

use std::net::TcpListener;

use crate::lab;
use crate::lab::Lab;
use crate::program::{Said, said};

/// Runs a node that must not start; `options` replace the usual ones.
fn node(lab: &Lab, options: &[(&str, &str)]) -> Said {
    let [run, csi, admin] = ["run", "run/csi.sock", "run/admin.sock"]
        .map(|name| lab.path(name).to_str().unwrap().to_owned());
    let usual = [
        ("--run-dir", &*run),
        ("--endpoint", &*csi),
        ("--admin-endpoint", &*admin),
        ("--http", "127.0.0.1:0"),
        ("--log", "error"),
    ];
    // A node that starts after all ends with another code.
    let mut command = lab.command("timeout");
    command.args(["--signal=KILL", "30", env!("CARGO_BIN_EXE_nix-csi"), "node"]);
    for (key, value) in usual {
        if options.iter().all(|(other, _)| *other != key) {
            command.args([key, value]);
        }
    }
    for (key, value) in options {
        command.arg(format!("{key}={value}"));
    }
    said(lab, &command.output().unwrap())
}

#[test]
fn values_that_can_not_be() {
    let lab = lab!();
    let long = "x".repeat(257);
    for (key, value, wanted) in [
        (
            "--endpoint",
            "tcp://h:1",
            "\"tcp://h:1\" is not a Unix socket: write unix:///absolute/path.sock",
        ),
        ("--endpoint", &*format!("/{long}"), "has 258 bytes, more than the 107 of a socket's path"),
        ("--http", "localhost", "invalid socket address syntax"),
        ("--node-id", "", "it has 0 bytes: give it 1 to 256"),
        ("--node-id", &long, "it has 257 bytes: give it 1 to 256"),
        ("--nix-option", "sandbox", "write KEY=VALUE"),
        ("--nix-option", "a b=c", "\"a b\" is not the name of a Nix setting"),
        ("--state-dir", "relative", "write an absolute path"),
        ("--run-dir", "relative", "write an absolute path"),
        ("--build-slots", "0", "0 is not in 1..=65535"),
        ("--hold", "soon", "expected number at 0"),
        ("--presentation", "magic", "[possible values: auto, redirect, hardlink]"),
        (
            "--log",
            "nix_csi=loud",
            "\"nix_csi=loud\": error parsing level filter: expected one of \"off\", \"error\", \
             \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5: write for example \
             info,nix_csi=debug",
        ),
    ] {
        let said = node(&lab, &[(key, value)]);
        assert_eq!((said.code, &*said.out), (Some(64), ""), "{said:?}");
        let first = format!("error: invalid value '{value}' for '{key} <");
        let (start, end) = (said.err.starts_with(&first), said.err.contains(wanted));
        assert!(start && end, "{key}={value}: {}", said.err);
    }
}

#[test]
fn things_that_are_not_there() {
    let lab = lab!();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = lab.dir.path().to_str().unwrap();
    let none = "No such file or directory (os error 2)";
    for (key, value, wanted) in [
        (
            "--nix",
            "/no/nix",
            &*format!(
                "can't run /no/nix: {none}: install Nix (make demo does) or name it with --nix"
            ),
        ),
        (
            "--nix",
            "no-nix",
            &format!(
                "can't run no-nix: {none}: install Nix (make demo does) or name it with --nix"
            ),
        ),
        ("--nix-option", "sandbx=false", "--nix-option failed: unknown setting 'sandbx'"),
        (
            "--nix-option",
            "cores=many",
            "--nix-option failed: setting 'cores' has invalid value 'many'",
        ),
        (
            "--http",
            &taken,
            &format!("can't listen on --http {taken}: Address already in use (os error 98)"),
        ),
        ("--endpoint", dir, "CSI: can't name the socket LAB: Is a directory (os error 21)"),
        ("--run-dir", "/proc/x", &format!("can't open the lock in --run-dir /proc/x: {none}")),
        (
            "--state-dir",
            &format!("{dir}/a,b"),
            "can't prepare mounts: can't use LAB/a,b/views: Invalid argument (os error 22) (',' in its name can't be given to an overlay)",
        ),
        (
            "--target-root",
            "/no",
            &format!("can't prepare mounts: can't resolve the target root /no: {none}"),
        ),
        (
            "--nix-daemon-socket",
            "/no/s",
            "the lent nix-daemon: nix-store --add failed: error: cannot connect to socket at '/no/s': No such file or directory",
        ),
    ] {
        assert_eq!(node(&lab, &[(key, value)]).failure(), wanted, "{key}={value}");
    }
    // A program that is no Nix, whatever it prints.
    let said = node(&lab, &[("--nix", "/bin/true")]);
    assert!(said.failure().contains("names no known version: install Nix"), "{said:?}");
}

#[tokio::test]
async fn a_second_node_keeps_its_hands_off() {
    let lab = lab!();
    let first = lab.node(&[]).await;
    let volume = lab.volume("v", &[("storePath", &lab.closure(&["--arg", "paths", "2"]))]);
    first.publish(&volume).await.unwrap();
    assert_eq!(node(&lab, &[]).failure(), "another nix-csi runs with --run-dir LAB/run");
    // Another run directory, the same views and roots.
    let other = lab.path("run2");
    assert_eq!(
        node(&lab, &[("--run-dir", other.to_str().unwrap())]).failure(),
        "another nix-csi runs with --state-dir /nix/var/nix-csi"
    );
    first.publish(&volume).await.unwrap();
    first.unpublish(&volume).await.unwrap();
}

#[test]
fn redirects_are_not_forced_where_they_can_not_be() {
    let lab = lab!();
    // A store that is itself two overlays deep leaves the kernel no room for a third.
    let script = "cd $0; mkdir -p d1/u d1/w d1/m d2/u d2/w
        mount -t tmpfs x d1; mkdir -p d1/u d1/w d1/m d1/n d1/u2 d1/w2
        mount -t overlay -o lowerdir=/nix,upperdir=d1/u,workdir=d1/w x d1/m
        mount -t overlay -o lowerdir=d1/m,upperdir=d1/u2,workdir=d1/w2 x d1/n
        mount --rbind d1/n /nix";
    let made = lab.run("sh", &["-euc", script, lab.dir.path().to_str().unwrap()]);
    if !made.status.success() {
        crate::lab::skipped("redirects_are_not_forced_where_they_can_not_be", &format!("{made:?}"));
        return;
    }
    let said = node(&lab, &[("--presentation", "redirect")]);
    let text = said.failure();
    assert!(text.starts_with("can't prepare mounts: "), "{text}");
}
