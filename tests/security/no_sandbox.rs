//! A node whose builds would fail, or have no sandbox, does not start.

use crate::lab::Lab;
use crate::planted;

/// Runs a node by `start`, a script that ends in `"$@"`, which must not come up; why.
fn start(lab: &Lab, script: &str) -> String {
    let run = lab.path("run");
    let run = run.to_str().unwrap();
    let mut command = lab.command("timeout");
    command.args([
        "--signal=KILL",
        "30",
        "sh",
        "-euc",
        script,
        "sh",
        env!("CARGO_BIN_EXE_nix-csi"),
        "node",
    ]);
    command.args(["--run-dir", run, "--endpoint", &format!("{run}/csi.sock")]);
    command.args([
        "--admin-endpoint",
        &format!("{run}/admin.sock"),
        "--http",
        "127.0.0.1:0",
        "--log",
        "error",
    ]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let reason = text.strip_prefix("nix-csi: ").and_then(|text| text.strip_suffix('\n'));
    reason.filter(|line| !line.contains('\n')).unwrap_or_else(|| panic!("{text}")).to_owned()
}

const FAILED: &str = "this Nix can't serve: a build in the sandbox failed";
const HELP: &str = "Nix needs mount, pid, network and user namespaces and the build users of nixbld: a container must be privileged; --nix-option sandbox=false builds without a sandbox, where every build may read what the driver can";

#[test]
fn without_a_namespace() {
    if std::env::var_os("NIX_CSI_TEST_ROOT").is_some_and(|root| !root.is_empty()) {
        let why = "the kernel gives no user namespace in a chroot, as another root is";
        crate::lab::skipped("without_a_namespace", why);
        return;
    }
    let lab = planted!();
    // The limit is the user namespace's own, not the machine's. Its users are the machine's.
    let script = r#"mkfifo /run/in /run/mapped
        unshare --user --mount sh -euc 'echo > /run/in; read -r _ < /run/mapped
            exec sh -euc "echo 0 > /proc/sys/user/max_net_namespaces; exec \"\$@\"" sh "$@"' sh "$@" &
        read -r _ < /run/in
        for map in uid_map gid_map; do echo 0 0 65536 > /proc/$!/$map; done
        echo > /run/mapped; wait $!"#;
    // Nix's own words differ between versions.
    let said = start(&lab, script).replace("cloning builder process", "unable to fork");
    let expected = "unable to fork: No space left on device (a limit of namespaces in \
                    /proc/sys/user is reached)";
    assert_eq!(said, format!("{FAILED}: {expected}: {HELP}"));
}

#[test]
fn without_build_users() {
    let lab = planted!();
    let script =
        "grep -v ^nixbld: /etc/group > /run/group; mount --bind /run/group /etc/group; exec \"$@\"";
    let expected = "the group 'nixbld' specified in 'build-users-group' does not exist";
    assert_eq!(start(&lab, script), format!("{FAILED}: {expected}: {HELP}"));
}

/// The sandbox has nothing to do with it.
#[test]
fn with_a_hook_that_fails() {
    let lab = planted!();
    let said = start(&lab, "exec \"$@\" --nix-option post-build-hook=/bin/false");
    let expected = "program '/bin/false' failed with exit code 1: the post-build-hook of nix.conf \
                    fails, and with it every build: mend /bin/false, or leave it out";
    // Newer versions quote differently.
    assert_eq!(said.replace('"', "'"), format!("{FAILED}: {expected}"));
}

/// Where some distributions for containers have all of `/var`.
#[test]
fn with_a_store_that_is_mounted_noexec() {
    let lab = planted!();
    let said = start(&lab, "mount -o remount,bind,noexec /nix; exec \"$@\"");
    let expected = "/nix/store is mounted noexec, so that builds could not start a program of it: have the store on \
                    another file system (in the chart, node.storePath), or let the cache build (--build-on cache)";
    assert_eq!(said, expected);
}

/// There nothing of it is started outside of volumes, which have flags of their own.
#[tokio::test(flavor = "multi_thread")]
async fn noexec_is_said_and_no_more_where_the_cache_builds() {
    let lab = planted!();
    let store_path = lab.closure(&["--arg", "paths", "2"]);
    lab.ok("mount", &["-o", "remount,bind,noexec", "/nix"]);
    let on_cache = ["--cache", "ssh-ng://nix@127.0.0.1:1", "--build-on", "cache", "--no-upload"];
    let node = lab.node(&on_cache).await;
    let log = std::fs::read_to_string(&node.log).unwrap();
    assert!(log.contains("/nix/store is mounted noexec: nothing built here"), "{log}");
    let volume = lab.volume("noexec", &[("storePath", &store_path)]);
    node.publish(&volume).await.unwrap();
}
