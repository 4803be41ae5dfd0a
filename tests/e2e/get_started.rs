//! docs/get-started.md as a new user follows it, command by command, in a cluster that has no driver yet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, SOON, wait_until};
use crate::examples::example;
use crate::install::install;
use crate::leftovers::nothing_left;
use crate::startup::is_listed;
use crate::web::{NIXPKGS, Web};

/// In this order.
const SECTIONS: [&str; 5] = ["Install", "The first pod", "More pods", "A cache", "Take it away"];

/// The reader's clone, in whose examples is what can be reached from here.
fn clone(dir: &Path, web: &Web) {
    let mut copy = Command::new("cp");
    let copied =
        copy.args(["-r", "dashboards", "deploy", "docs", "examples"]).arg(dir).status().unwrap();
    assert!(copied.success());
    for entry in fs::read_dir(dir.join("examples")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|kind| kind == "yaml") {
            let name = file.file_stem().unwrap().to_str().unwrap();
            fs::write(&file, example(name, web)).unwrap();
        }
    }
}

/// What the page calls `helm` also says which image is in this cluster, and that there is no substituter.
fn helm(cluster: &Cluster, bin: &Path) {
    let here = std::env::current_dir().unwrap();
    let script = format!(
        "#!/bin/sh\ncase $1 in install | upgrade)\n  set -- \"$@\" --values {}/tests/e2e/install/values.yaml \
         --set cache.env.NIX_CSI_NIX_OPTIONS=substituters=\nesac\nexec {}/helm \"$@\"\n",
        here.display(),
        cluster.dir().display()
    );
    fs::create_dir(bin).unwrap();
    fs::write(bin.join("helm"), script).unwrap();
    fs::set_permissions(bin.join("helm"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn its_commands_work_one_after_the_other() {
    let cluster = Cluster::get();
    let web = Web::start(&cluster);
    let reader = tempfile::tempdir().unwrap();
    clone(reader.path(), &web);
    helm(&cluster, &reader.path().join("bin"));
    // For the cache: the class that this cluster does not have.
    cluster.kubectl(&["apply", "-f", "tests/e2e/install/volume.yaml"]);
    cluster.helm(&["uninstall", "nix-csi", "--wait"]);
    wait_until("the kubelet to forget the driver", SOON, || !is_listed(&cluster));

    let here = std::env::current_dir().unwrap();
    let mut command = Command::new(here.join("scripts/follow.py"));
    command.arg("docs/get-started.md").args(SECTIONS).current_dir(reader.path());
    command.arg("--replace").arg(format!("{NIXPKGS}={}", web.serve_nixpkgs()));
    command.env("PATH", cluster.path(&[reader.path().join("bin"), here.join("target/release")]));
    command.env("KUBECONFIG", cluster.dir().join("admin.kubeconfig")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    println!("{}", said.concat());

    restore(&cluster);
    assert!(output.status.success(), "see above");
    let count = said[0].lines().last().unwrap().split(' ').nth(1).unwrap();
    assert!(count.parse::<u32>().unwrap() > 15, "{count}");
    nothing_left(&cluster);
}

/// Takes away what a walk that stopped has left, while there is a driver, and installs that of the other tests.
fn restore(cluster: &Cluster) {
    const LEFT: [&str; 4] =
        ["pod/hello", "deployment/web-server", "service/web-server", "configmap/web-server"];
    let delete = ["delete", "--ignore-not-found", "--timeout=60s"];
    cluster.kubectl(&[&delete[..], &LEFT].concat());
    let gone = ["wait", "pod", "--selector=app=web-server", "--for=delete", "--timeout=60s"];
    cluster.kubectl(&gone);
    cluster.kubectl(&["delete", "--ignore-not-found", "namespace/nix-csi", "--timeout=120s"]);
    cluster.kubectl(&[&delete[..], &["pv/nix-cache-store"]].concat());
    // The release's records went with the namespace; what is not in it did not.
    for kind in ["clusterroles", "clusterrolebindings", "csidrivers"] {
        cluster.kubectl(&["delete", kind, "-l", "app.kubernetes.io/part-of=nix-csi"]);
    }
    install(cluster);
    wait_until("the registration", SOON, || is_listed(cluster));
}
