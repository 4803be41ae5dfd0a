//! The pods of `examples/`, as they are but for the names of what can't be reached from here.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, LONG, SOON, Space, in_driver, ok, wait_until};
use crate::leftovers::nothing_left;
use crate::web::{NIXPKGS, NIXPKGS_FILE, STAND_IN, Web, tarball};

const PASSWORD: &str = "TOKEN";
const PRIVATE: &str = "https://git.example.org/team/app/archive/main.tar.gz";

/// The example, with this cluster's images and flakes for the registries' and the forges'.
pub(crate) fn example(name: &str, web: &Web) -> String {
    let mut text = fs::read_to_string(format!("examples/{name}.yaml")).unwrap();
    let nix = format!("{NIXPKGS}#nix\n");
    if text.contains(&nix) {
        text = text.replace(&nix, &format!("{}#nix\n", web.serve("nix.tar.gz", with_nix())));
    }
    if text.contains(NIXPKGS) {
        text = text.replace(NIXPKGS, &web.serve_nixpkgs());
    }
    if text.contains(PRIVATE) {
        let flake = tarball(Path::new(STAND_IN));
        text = text.replace(PRIVATE, &web.serve_to("ci", PASSWORD, "main.tar.gz", flake));
        text = text.replace("git.example.org", &web.host());
    }
    text.replace("registry.k8s.io/pause:3.10", "localhost/empty:e2e")
        .replace("docker.io/library/alpine:3.22", "localhost/busybox:e2e")
}

/// The stand-in with this machine's Nix in it, and its libraries.
fn with_nix() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let flake = dir.path().join("with-nix");
    fs::create_dir_all(flake.join("nix")).unwrap();
    fs::copy(format!("{STAND_IN}/flake.nix"), flake.join("flake.nix")).unwrap();
    let program = fs::canonicalize(
        ok("which nix", &Command::new("which").arg("nix").output().unwrap()).trim(),
    )
    .unwrap();
    let libraries = ok("ldd", &Command::new("ldd").arg(&program).output().unwrap());
    let files = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let name = if name.starts_with("ld-linux") { "ld.so" } else { name };
        fs::copy(file, flake.join("nix").join(name)).unwrap();
    }
    fs::copy(program, flake.join("nix/nix")).unwrap();
    tarball(&flake)
}

fn try_out(theme: &str, examine: impl FnOnce(&Space<'_>, &Web)) {
    let cluster = Cluster::get();
    let web = Web::start(&cluster);
    let space = cluster.space(theme);
    examine(&space, &web);
    drop(space);
    nothing_left(&cluster);
}

/// Applies the example and waits for what its pod says.
fn says_hello(space: &Space<'_>, name: &str, text: &str) {
    space.apply_text(text);
    let said = space.succeeded(name);
    // Of Nix in a pod there are lines before it.
    assert_eq!(said.lines().last(), Some("Hello, world!"), "{said}");
}

#[test]
fn hello() {
    try_out("hello", |space, web| says_hello(space, "hello", &example("hello", web)));
}

#[test]
fn web_server() {
    try_out("web-server", |space, web| {
        space.apply_text(&example("web-server", web));
        space.all_running("app=web-server", 2);
        let path = format!("/api/v1/namespaces/{}/services/web-server:http/proxy/", space.name);
        wait_until("the page", SOON, || {
            let page = space.cluster.ask(&["get", "--raw", &path]);
            page.as_deref() == Some("Served from a closure.\n")
        });
        space.kubectl(&["rollout", "status", "deployment/web-server", "--timeout=60s"]);
    });
}

#[test]
fn architectures() {
    try_out("architectures", |space, web| {
        let reference = format!("{}#hello", web.serve_nixpkgs());
        let said = space.cluster.kubectl(&in_driver(&["nix-csi", "prefetch", &reference]));
        let path = said.split(' ').next().unwrap();
        let arch = std::env::consts::ARCH;
        let theirs = format!("/nix/store/00000000000000000000000000000000-hello-{arch}");
        let text = example("architectures", web);
        assert!(text.contains(&theirs), "{text}");
        // Another system's is still what nobody has.
        says_hello(space, "architectures", &text.replace(&theirs, path));
    });
}

#[test]
fn writable() {
    try_out("own-nix", |space, web| says_hello(space, "writable", &example("writable", web)));
}

#[test]
fn private() {
    try_out("private", |space, web| {
        let text = example("private", web);
        // It is the Secret that opens it.
        space.apply_text(&text.replace(&format!("password {PASSWORD}"), "password wrong"));
        wait_until("the refusal", LONG, || space.why("private").contains("401"));
        space.delete_pod("private");
        says_hello(space, "private", &text);
    });
}

#[test]
fn prefetch() {
    try_out("prefetch", |space, web| {
        let cluster = space.cluster;
        let text = example("prefetch", web);
        cluster.upgrade_with(
            &["values.yaml"],
            &["--set", "node.keepConfigMap=nix-csi-keep", "--wait"],
        );
        let examined = std::panic::catch_unwind(|| {
            cluster.apply_text(&text);
            wait_until("the closure to be there", LONG, || {
                let status = in_driver(&["nix-csi", "status"]);
                let said = cluster.ask(&status).unwrap_or_default();
                let kept =
                    said.lines().find(|line| line.contains(&format!("{NIXPKGS_FILE}#hello")));
                kept.is_some_and(|line| line.contains("ready"))
            });
            // Nobody needs the server any more: a reference keeps what it named last.
            let pod = example("hello", web);
            web.remove(NIXPKGS_FILE);
            says_hello(space, "hello", &pod);
        });
        cluster.upgrade_with(&["values.yaml"], &["--wait"]);
        cluster.kubectl(&["-n", "nix-csi", "delete", "configmap", "nix-csi-keep"]);
        examined.unwrap();
    });
}

/// Each file is tried by the test of its name.
#[test]
fn all_of_them_are_tried() {
    let here = include_str!("examples.rs");
    let files = fs::read_dir("examples").unwrap().map(|entry| entry.unwrap().path());
    let names = files.filter(|file| file.extension().is_some_and(|kind| kind == "yaml"));
    let names: Vec<_> =
        names.map(|file| file.file_stem().unwrap().to_str().unwrap().replace('-', "_")).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(here.contains(&format!("#[test]\nfn {name}() {{")), "{name}");
    }
}
