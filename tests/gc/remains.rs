//! What lies in the store half made.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;

use crate::lab;
use crate::lab::{Lab, eventually, until};
use crate::store::strays;
use crate::world::{EAGER, assert_sound, gc, valid};

/// A build of a directory that is half there until it is let.
fn half(lab: &Lab, name: &str) -> String {
    let dir = lab.path("nix/half");
    fs::create_dir_all(&dir).unwrap();
    lab.ok("chmod", &["1777", dir.to_str().unwrap()]);
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; args = [ \"-c\" \"mkdir $out; echo half > $out/half; \
         while [ ! -e /nix/half/{name} ]; do sleep 0.02; done; echo whole > $out/whole\" ]; }}"
    )
}

fn open(lab: &Lab, name: &str) {
    fs::write(lab.path("nix/half").join(name), "").unwrap();
}

fn is_half_there(lab: &Lab, name: &str) -> bool {
    let made = format!("-{name}");
    strays(lab).iter().any(|stray| stray.ends_with(&made))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_killed_build_goes_and_of_one_that_runs_stays() {
    let lab = lab!();
    lab.ok("nix-store", &["--init"]);
    let killed = half(&lab, "killed");
    let mut build = lab.command("nix-build");
    build.args([
        "--option",
        "sandbox",
        "false",
        "--option",
        "substituters",
        "",
        "--no-out-link",
        "-E",
        &killed,
    ]);
    let mut build = build.stdout(Stdio::null()).spawn().unwrap();
    eventually("the build to be half done", || is_half_there(&lab, "killed"));
    // Nobody takes it from who is at it, however old it is.
    gc(&lab, &["--older-than", "0s"]).unwrap();
    assert!(is_half_there(&lab, "killed"));
    lab::signal_inside(&build, Signal::KILL);
    build.wait().unwrap();
    // Its builder goes on by itself, into what nobody will know.
    open(&lab, "killed");

    let node = lab.node(EAGER).await;
    let volume = lab.volume("v", &[("nixExpr", &half(&lab, "built"))]);
    let collects = async {
        until("the other build to be half done", async || is_half_there(&lab, "built")).await;
        until("the killed one's to go", async || !is_half_there(&lab, "killed")).await;
        assert!(is_half_there(&lab, "built"));
        open(&lab, "built");
    };
    let (published, ()) = tokio::join!(node.publish(&volume), collects);
    published.unwrap();
    let shown = volume.target.join("var/result");
    assert_eq!(lab.names(shown.to_str().unwrap()), ["half", "whole"]);
    assert!(node.log().contains("1 half-made paths removed"), "{}", node.log());
    assert_eq!(strays(&lab), [""; 0]);
    assert_sound(&lab);
}

/// A database that was lost and made anew says nothing of what is older.
#[test]
fn without_their_database_paths_stay() {
    let lab = lab!();
    let path = lab.closure(&["--argstr", "seed", "lost"]);
    lab.ok("sh", &["-ec", "rm -r /nix/var/nix/db"]);
    let made = lab.unrooted(&["--argstr", "seed", "known"]);
    lab.ok(
        "sh",
        &[
            "-ec",
            "rm -r /nix/var/nix/db; until [ $(date +%s) -gt $(stat -c %Z $0) ]; do :; done",
            &made,
        ],
    );
    lab.ok("nix-store", &["--init"]);
    gc(&lab, &["--older-than", "0s"]).unwrap();
    assert_eq!(valid(&lab).len(), 0);
    for path in [&path, &made] {
        assert!(strays(&lab).contains(&path["/nix/store/".len()..].to_owned()));
    }
}
