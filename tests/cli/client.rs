//! `nix-csi mount`, `unmount` and `status`.

use std::fs;

use crate::lab;
use crate::program::{client, run_in, said};

#[tokio::test]
async fn explore() {
    let lab = lab!();
    let d = lab.dir.path().to_str().unwrap().to_owned();
    lab.ok("chmod", &["755", &d]);
    let node = lab.node(&[]).await;
    let path = lab.closure(&["--arg", "paths", "3"]);
    for sub in ["flake", "git", "work"] {
        fs::create_dir(lab.path(sub)).unwrap();
    }
    let text = format!(
        "{{ outputs = _: {{ packages.{}.x = import ./x.nix; }}; }}",
        nix_csi::model::System::current()
    );
    for sub in ["flake", "git"] {
        fs::write(lab.path(sub).join("flake.nix"), &text).unwrap();
        fs::write(lab.path(sub).join("x.nix"), "derivation { name = \"x\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/bin:/usr/bin\"; args = [ \"-c\" \"mkdir $out; echo hi > $out/hi\" ]; }").unwrap();
    }
    let g = lab.path("git");
    let g = g.to_str().unwrap();
    lab.run("git", &["-C", g, "init", "-q"]);
    lab.run("git", &["-C", g, "add", "."]);
    std::os::unix::fs::symlink("work", lab.path("link")).unwrap();
    println!("#### {:?}", client(&lab, &node, "flake", &["mount", "--flake-ref", ".#x", "./dir"]));
    println!(
        "#### {:?}",
        client(&lab, &node, "flake", &["mount", "--flake-ref", ".#nope", "./dir2"])
    );
    println!("#### {:?}", client(&lab, &node, "flake", &["unmount", "./dir"]));
    println!("#### {:?}", client(&lab, &node, "git", &["mount", "--flake-ref", ".#x", "./dir"]));
    lab.run("chown", &["-R", "nobody", g]);
    println!(
        "#### foreign git {:?}",
        client(&lab, &node, "git", &["mount", "--flake-ref", ".#x", "./dir2"])
    );
    println!("#### {:?}", client(&lab, &node, "work", &["mount", "--flake-ref", ".#x", "./dir"]));
    println!("#### {:?}", client(&lab, &node, "work", &["mount", "--store-path", &path, "a"]));
    println!(
        "#### again {:?}",
        client(&lab, &node, "work", &["mount", "--store-path", &path, "a"])
    );
    println!("#### other {:?}", client(&lab, &node, "work", &["mount", "--expr", "1", "a"]));
    println!("#### bad {:?}", client(&lab, &node, "work", &["mount", "--expr", "1", "b"]));
    println!(
        "#### rw {:?}",
        client(&lab, &node, "work", &["mount", "--rw", "--store-path", &path, "w"])
    );
    println!(
        "#### link {:?}",
        client(&lab, &node, "link", &["mount", "--store-path", &path, "./c"])
    );
    println!(
        "#### link {:?}",
        client(&lab, &node, ".", &["mount", "--store-path", &path, "link/d"])
    );
    println!("#### link {:?}", client(&lab, &node, ".", &["mount", "--store-path", &path, "link"]));
    println!(
        "#### noparent {:?}",
        client(&lab, &node, ".", &["mount", "--store-path", &path, "no/d"])
    );
    println!(
        "#### dotdot {:?}",
        client(&lab, &node, "work/a", &["mount", "--store-path", &path, ".."])
    );
    println!("#### status {:?}", client(&lab, &node, ".", &["status"]));
    println!("#### status {:?}", client(&lab, &node, ".", &["status", "-o", "json"]).out);
    println!("#### unm {:?}", client(&lab, &node, "work", &["unmount", "nothing"]));
    println!("#### unm {:?}", client(&lab, &node, "work", &["unmount", "no/thing"]));
    println!("#### unm {:?}", client(&lab, &node, ".", &["unmount", "link/c"]));
    println!("#### unm {:?}", client(&lab, &node, ".", &["unmount", "link/d"]));
    println!("#### unm w {:?}", client(&lab, &node, "work/w", &["unmount", "."]));
    println!("#### unm w {:?}", client(&lab, &node, "work", &["unmount", "w"]));
    println!("#### usage {:?}", client(&lab, &node, "work", &["mount", "w"]));
    println!(
        "#### usage {:?}",
        run_in(&lab, "work", &["mount", "--expr", "1", "--store-path", "2", "w"])
    );
    println!("#### usage {:?}", run_in(&lab, "work", &["status", "--endpont", "x"]));
    println!("#### usage {:?}", run_in(&lab, "work", &[]));
    println!(
        "#### not running {:?}",
        run_in(&lab, "work", &["mount", "--expr", "1", "b", "--endpoint", "unix:///run/none.sock"])
    );
    println!(
        "#### not running {:?}",
        run_in(&lab, "work", &["status", "--admin-endpoint", "/run/none.sock"])
    );
    let o = lab
        .command("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_nix-csi"),
            "status",
            "--admin-endpoint",
            node.admin.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    println!("#### nobody {:?}", said(&lab, &o));
    let csi = node.admin.clone();
    node.kill();
    println!(
        "#### dead {:?}",
        run_in(&lab, "work", &["status", "--admin-endpoint", csi.to_str().unwrap()])
    );
}
