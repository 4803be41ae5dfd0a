//! `nix-csi mount`, `unmount` and `status`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use nix_csi::model::System;
use serde_json::Value;

use crate::http::get;
use crate::lab;
use crate::lab::{Lab, until};
use crate::program::{Said, client, run_in, said};

/// A flake of two files in a directory of the machine.
fn flake(lab: &Lab, name: &str) -> String {
    let dir = lab.path(name);
    fs::create_dir(&dir).unwrap();
    let system = System::current();
    let text = format!("{{ outputs = _: {{ packages.{system}.x = import ./x.nix; }}; }}");
    fs::write(dir.join("flake.nix"), text).unwrap();
    let text = format!(
        "derivation {{ name = \"x\"; system = \"{system}\"; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; args = [ \"-c\" \"mkdir $out; echo hi > $out/hi\" ]; }}"
    );
    fs::write(dir.join("x.nix"), text).unwrap();
    dir.to_str().unwrap().to_owned()
}

fn has_hi(lab: &Lab, mount: &str) -> bool {
    let file = lab.path(mount).join("var/result/hi");
    lab.ok("cat", &[file.to_str().unwrap()]) == "hi"
}

/// `mounted … at LAB/x in 0.1 s`, without the seconds.
fn mounted(said: &Said) -> String {
    said.success().split_once(" in ").unwrap().0.to_owned()
}

#[tokio::test]
async fn a_local_flake_is_copied_as_its_caller() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    flake(&lab, "flake");
    let run = |args: &[&str]| client(&lab, &node, "flake", args);
    let made = mounted(&run(&["mount", "--flake-ref", ".#x", "./dir"]));
    assert!(made.ends_with("-x (1 paths, 288 B, built) at LAB/flake/dir"), "{made}");
    assert!(has_hi(&lab, "flake/dir"));
    let failed = run(&["mount", "--flake-ref", ".#nope", "other"]);
    let wanted = " does not provide attribute 'packages.";
    assert!(failed.failure().contains(wanted), "{failed:?}");
    assert_eq!(run(&["unmount", "./dir"]).success(), "unmounted LAB/flake/dir");
    assert!(!lab.path("flake/dir").is_dir());

    fs::create_dir(lab.path("empty")).unwrap();
    let none = client(&lab, &node, "empty", &["mount", "--flake-ref", ".#x", "dir"]);
    let text = none.failure();
    assert!(text.starts_with("copying flake . failed: "), "{text}");
    assert!(text.contains("find a flake"), "{text}");
}

#[tokio::test]
async fn a_flake_in_a_git_tree_is_copied_too() {
    let lab = lab!();
    if !lab.run("git", &["--version"]).status.success() {
        crate::lab::skipped("a_flake_in_a_git_tree_is_copied_too", "there is no git");
        return;
    }
    let node = lab.node(&[]).await;
    let dir = flake(&lab, "git");
    lab.ok("git", &["-C", &dir, "init", "-q"]);
    lab.ok("git", &["-C", &dir, "add", "."]);
    let run = |args: &[&str]| client(&lab, &node, "git", args);
    mounted(&run(&["mount", "--flake-ref", ".#x", "../dir"]));
    assert!(has_hi(&lab, "dir"));
    run(&["unmount", "../dir"]).success();
    // git refuses another user's tree, and says why.
    lab.ok("chown", &["-R", "nobody", &dir]);
    let refused = run(&["mount", "--flake-ref", ".#x", "../dir"]);
    let text = refused.failure();
    // Nix looks with git, or itself.
    let wanted = [
        "copying flake . failed: detected dubious ownership in repository at 'LAB/git'",
        "copying flake . failed: opening Git repository \"LAB/git\": repository path 'LAB/git' is not owned",
    ];
    assert!(wanted.iter().any(|wanted| text.starts_with(wanted)), "{text}");
}

#[tokio::test]
async fn mounting_showing_and_unmounting() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let path = lab.closure(&["--arg", "paths", "3"]);
    fs::create_dir(lab.path("work")).unwrap();
    symlink("work", lab.path("link")).unwrap();
    let run = |args: &[&str]| client(&lab, &node, "work", args);
    assert!(run(&["status"]).success().lines().any(|line| line == "no volumes"));

    let made = mounted(&run(&["mount", "--store-path", &path, "a"]));
    assert_eq!(
        made.replace(&path, "PATH"),
        "mounted PATH (3 paths, 450 kB, present) at LAB/work/a"
    );
    // The same again is no other mount.
    assert_eq!(mounted(&run(&["mount", "--store-path", &path, "a"])), made);
    assert_eq!(lab.mounts_below(&lab.path("work")).len(), 1);
    assert_eq!(
        run(&["mount", "--expr", "1", "a"]).failure(),
        "the volume is already published with other attributes, access mode or readonly: \
         unpublish it first"
    );
    let other = run(&["mount", "--rw", "--store-path", &path, "a"]);
    assert!(other.failure().starts_with("the volume is already published"));
    // The parents' symlinks are resolved as the caller sees them; the last component's is not.
    assert!(mounted(&run(&["mount", "--store-path", &path, "../link/b"])).ends_with("LAB/work/b"));
    assert!(run(&["mount", "--store-path", &path, "../link"]).failure().contains("is a symlink"));
    let missing = "the directory LAB/work/no does not exist";
    assert_eq!(run(&["mount", "--store-path", &path, "no/dir"]).failure(), missing);
    assert_eq!(run(&["unmount", "no/dir"]).failure(), missing);
    assert_eq!(
        run(&["unmount", "none"]).failure(),
        "no volume is mounted at LAB/work/none: `nix-csi status` lists them"
    );
    let foreign = lab.path("work/foreign");
    lab.ok("mkdir", &[foreign.to_str().unwrap()]);
    lab.ok("mount", &["-t", "tmpfs", "x", foreign.to_str().unwrap()]);
    assert_eq!(
        run(&["mount", "--store-path", &path, "foreign"]).failure(),
        "mount failed: target_path LAB/work/foreign already is a mount point, and not of this \
         volume"
    );

    mounted(&run(&["mount", "--rw", "--store-path", &path, "w"]));
    lab.ok("touch", &[lab.path("work/w/store/new").to_str().unwrap()]);
    assert_eq!(
        run(&["mount", "--rw", "--size", "8Mi", "--store-path", &path, "s"]).failure(),
        "volumeAttributes.size \"8Mi\" is too small for a file system: give it 16Mi or more"
    );
    let json: Value = serde_json::from_str(run(&["status", "-o", "json"]).success()).unwrap();
    check_json(&json, &path);
    for name in ["a", "b", "w"] {
        assert_eq!(run(&["unmount", name]).success(), format!("unmounted LAB/work/{name}"));
    }
    assert_eq!(lab.names(lab.path("work").to_str().unwrap()), ["foreign"]);
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Programs rely on these names.
fn check_json(json: &Value, path: &str) {
    assert_eq!(
        keys(json),
        ["builds", "gc", "kept", "node", "refusedSources", "unreadable", "views", "volumes"]
    );
    let node =
        "driver health healthReason nixVersion nodeId presentation presentationReason version";
    assert_eq!(keys(&json["node"]).join(" "), node);
    let volumes = json["volumes"].as_array().unwrap();
    let names = "closureBytes ephemeral layout namespace origin paths pod podUid presentation \
                 publishedAt readOnly revision root serviceAccount source sourceKind state targetPath \
                 volumeId";
    assert_eq!(keys(&volumes[0]).join(" "), names);
    let names = "closureBytes paths presentation replaced root users viewId";
    assert_eq!(keys(&json["views"][0]).join(" "), names);
    let is_w = |v: &&Value| v["targetPath"].as_str().unwrap().ends_with("/work/w");
    let volume = volumes.iter().find(is_w).unwrap();
    assert_eq!(volume["readOnly"], false);
    assert_eq!(volume["state"], "mounted");
    assert_eq!((&volume["root"], &volume["paths"]), (&path.into(), &3.into()));
    assert_eq!(json["views"][0]["users"], 3);
}

#[tokio::test]
async fn a_node_that_is_not_there_or_not_for_you() {
    let lab = lab!();
    lab.ok("chmod", &["755", lab.dir.path().to_str().unwrap()]);
    let node = lab.node(&[]).await;
    let none = "can't reach nix-csi at /run/none.sock: there is no such socket: start `nix-csi \
                node`, or name its socket";
    let mount = ["mount", "--expr", "1", "dir", "--endpoint", "unix:///run/none.sock"];
    assert_eq!(run_in(&lab, ".", &mount).failure(), none);
    let status = ["status", "--admin-endpoint", "/run/none.sock"];
    assert_eq!(run_in(&lab, ".", &status).failure(), none);

    let admin = node.admin.to_str().unwrap().to_owned();
    let copy = lab.path("nix-csi"); // the project's directory may be closed to others
    fs::copy(env!("CARGO_BIN_EXE_nix-csi"), &copy).unwrap();
    let mut nobody = lab.command("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", copy.to_str().unwrap()]);
    let output = nobody.args(["status", "--admin-endpoint", &admin]).output().unwrap();
    assert_eq!(
        said(&lab, &output).failure(),
        "can't reach nix-csi at LAB/run/admin.sock: permission denied: the socket is for root \
         alone; run this as root"
    );
    node.kill();
    assert_eq!(
        run_in(&lab, ".", &["status", "--admin-endpoint", &admin]).failure(),
        "can't reach nix-csi at LAB/run/admin.sock: nobody listens: `nix-csi node` is not running"
    );
}

#[test]
fn wrong_usage_exits_64() {
    let cases: [(&[&str], &str); 7] = [
        (&[], "Usage: nix-csi <COMMAND>"),
        (&["mount", "dir"], "the following required arguments were not provided"),
        (
            &["mount", "--expr", "1", "--store-path", "2", "dir"],
            "the argument '--expr <EXPR>' cannot be used with '--store-path <STORE_PATH>'",
        ),
        (&["mount", "--expr", "1"], "<DIRECTORY>"),
        (&["mount", "--expr", "1", "--size", "1Gi", "dir"], "--rw"),
        (&["unmount"], "<DIRECTORY>"),
        (&["status", "--endpont", "x"], "unexpected argument '--endpont' found"),
    ];
    for (args, wanted) in cases {
        let program = Path::new(env!("CARGO_BIN_EXE_nix-csi"));
        let output = std::process::Command::new(program).args(args).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {err}");
        assert!(err.contains(wanted) && output.stdout.is_empty(), "{args:?}: {err}");
    }
}

/// A builder that notes that it runs, prints a line and ends when it is let, as `code` says.
fn waiting(lab: &Lab, name: &str, code: u8) -> String {
    let dir = lab.path("nix/gates");
    fs::create_dir_all(&dir).unwrap();
    lab.ok("chmod", &["1777", dir.to_str().unwrap()]);
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; args = [ \"-c\" ''echo begun; echo > /nix/gates/{name}.runs; \
         while [ ! -e /nix/gates/{name}.open ]; do sleep 0.02; done; echo > $out; exit {code}'' ]; }}"
    )
}

#[tokio::test]
async fn builds_are_shown_watched_and_tried_again() {
    let lab = lab!();
    let node = lab.node(&["--failure-backoff", "1h", "--failure-backoff-max", "1h"]).await;
    fs::create_dir(lab.path("work")).unwrap();
    let run = |args: &[&str]| client(&lab, &node, "work", args);
    assert_eq!(run(&["builds"]).success(), "nothing is being built");

    let (good, bad) = (waiting(&lab, "good", 0), waiting(&lab, "bad", 3));
    let admin = format!("unix://{}", node.admin.display());
    let mut watch = lab.command(env!("CARGO_BIN_EXE_nix-csi"));
    watch.args(["builds", "--watch", "-o", "json", "--admin-endpoint", &admin]);
    let seen = lab.path("seen");
    let mut watch = watch.stdout(fs::File::create(&seen).unwrap()).spawn().unwrap();
    let volumes = [("good", &good), ("bad", &bad)].map(|(n, e)| lab.volume(n, &[("nixExpr", e)]));
    let look = async {
        let begun =
            |name: &str| lab.path("nix/gates").join(format!("{name}.runs")).try_exists().unwrap();
        let both = async || ["good", "bad"].iter().all(|name| begun(name));
        until("both builds", both).await;
        let told = async || fs::read_to_string(&seen).unwrap().contains("\"building\"");
        until("the watch to tell of them", told).await;
        let json: Value = serde_json::from_str(run(&["builds", "-o", "json"]).success()).unwrap();
        let builds = json["builds"].as_array().unwrap();
        assert_eq!(builds.len(), 2);
        for build in builds {
            assert_eq!(
                (&build["stage"], &build["tenant"]),
                (&"building".into(), &"(local)".into())
            );
            assert_eq!(build["logTail"], serde_json::json!(["begun"]));
        }
        let (_, metrics) = get(&node, "/metrics");
        let under_way = "nixcsi_build_progress{state=\"expected\",unit=\"derivations\"} 2\n";
        assert!(metrics.contains(under_way), "{metrics}");
        let table = run(&["builds"]);
        assert!(table.success().starts_with(" NO  SOURCE"), "{}", table.success());
        assert!(table.success().contains("building good"), "{}", table.success());
        for name in ["good", "bad"] {
            fs::write(lab.path("nix/gates").join(format!("{name}.open")), "").unwrap();
        }
    };
    let (good_result, bad_result, ()) =
        tokio::join!(node.publish(&volumes[0]), node.publish(&volumes[1]), look);
    good_result.unwrap();
    bad_result.unwrap_err();

    let shown = run(&["builds"]);
    let lines: Vec<_> = shown.success().lines().collect();
    assert_eq!(lines[0], "nothing is being built");
    assert!(lines[1].starts_with("failure 1 of nixExpr derivation { name = \"bad\";"), "{lines:?}");
    assert!(lines[1].ends_with("…, 1 in a row, tried again in 3600 s:"), "{lines:?}");
    assert!(lines[2].contains("build of bad failed after "), "{lines:?}");
    assert_eq!(lines[4..], ["    begun"]);
    assert!(node.metrics().contains("nixcsi_build_failures_remembered 1"));
    let early = node.publish(&volumes[1]).await.unwrap_err();
    let notice = "not tried again for 3600 s: `nix-csi builds retry` does it at once";
    assert_eq!(early.message().lines().last(), Some(notice));
    let unknown = "no failure has that number: `nix-csi builds` lists them";
    assert_eq!(run(&["builds", "retry", "7"]).failure(), unknown);
    assert_eq!(
        run(&["builds", "retry", "1"]).success(),
        "1 failure is tried again at the next call"
    );
    let again = node.publish(&volumes[1]).await.unwrap_err();
    assert!(!again.message().contains("not tried again"), "{}", again.message());
    // A person who mounts means now.
    let mount = run(&["mount", "--expr", &bad, "bad"]);
    assert!(mount.err.starts_with("nix-csi: build of bad failed after "), "{mount:?}");
    assert!(!mount.err.contains("not tried again"), "{mount:?}");

    // The stream ends with the node, and has told both ends.
    drop(node);
    watch.wait().unwrap();
    let text = fs::read_to_string(&seen).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ended = |name: &str, error: &str| {
        events.iter().any(|e| {
            let source = e["build"]["source"].as_str().unwrap();
            e["ended"] == true
                && source.contains(&format!("name = \"{name}\""))
                && e["error"].as_str().unwrap().contains(error)
        })
    };
    assert!(ended("good", "") && ended("bad", "build of bad failed after "), "{text}");
    let began = |e: &Value| e["ended"] == false && e["build"]["stage"] == "building";
    assert!(events.iter().any(began), "{text}");
}

#[tokio::test]
async fn waiting_for_a_node_that_has_just_been_started() {
    let lab = lab!();
    fs::create_dir_all(lab.path("run")).unwrap();
    let admin = lab.path("run/admin.sock").to_str().unwrap().to_owned();
    let wait = |time: &str| {
        let mut command = lab.command(env!("CARGO_BIN_EXE_nix-csi"));
        command.args(["status", "--wait", time, "--admin-endpoint", &admin]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    assert_eq!(
        said(&lab, &wait("100ms").wait_with_output().unwrap()).failure(),
        "the node is not ready after 100ms: can't reach nix-csi at LAB/run/admin.sock: there is no such socket: \
         start `nix-csi node`, or name its socket"
    );
    // One that hangs.
    let silent = std::os::unix::net::UnixListener::bind(&admin).unwrap();
    assert_eq!(
        said(&lab, &wait("200ms").wait_with_output().unwrap()).failure(),
        "the node is not ready after 200ms: it does not answer"
    );
    drop(silent);
    fs::remove_file(&admin).unwrap();
    let waiting = wait("500years");
    let _node = lab.node(&[]).await;
    let found = said(&lab, &waiting.wait_with_output().unwrap());
    assert!(found.success().contains(" is ready; "), "{found:?}");
}
