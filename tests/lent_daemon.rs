//! A node on somebody else's nix-daemon: it works where the daemon sees the node's GC roots, and is
//! refused at start where it doesn't.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "lab/mod.rs"]
mod lab;

use std::process::{Child, Stdio};

use lab::{Lab, eventually};

const BUILT: &str = "derivation { name = \"lent\"; system = builtins.currentSystem; \
                     builder = \"/bin/sh\"; args = [ \"-c\" \"echo lent > $out\" ]; }";

/// A daemon of the machine's own; dropping it ends it.
struct Daemon {
    child: Child,
    socket: String,
}

impl Daemon {
    /// `before` is a shell command that is run in the daemon's own mount namespace first.
    fn start(lab: &Lab, before: &str) -> Self {
        let socket = lab.path("lent").to_str().unwrap().to_owned();
        let script = format!("{before} exec nix-daemon --option sandbox false");
        let mut command = lab.command("env");
        command.arg(format!("NIX_DAEMON_SOCKET_PATH={socket}")).arg("NIX_REMOTE=local");
        command.args(["unshare", "--mount", "sh", "-euc", &script]);
        let log = std::fs::File::create(lab.path("lent.log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let file = lab.path("lent");
        eventually("the lent daemon", || file.try_exists().unwrap());
        Self { child, socket }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_daemon_that_sees_our_roots_builds_for_us() {
    let lab = lab!();
    let daemon = Daemon::start(&lab, "");
    let node = lab.node(&["--nix-daemon-socket", &daemon.socket]).await;
    let volume = lab.volume("lent", &[("nixExpr", BUILT)]);
    node.publish(&volume).await.unwrap();
    let result = volume.target.join("var/result");
    assert_eq!(lab.ok("cat", &[result.to_str().unwrap()]), "lent");
    let status = node.status().await;
    assert_eq!(status.volumes[0].origin, "built");
    // Its collector keeps what is mounted.
    let root = &status.volumes[0].root;
    let remote = format!("unix://{}", daemon.socket);
    lab.ok("env", &[&format!("NIX_REMOTE={remote}"), "nix-store", "--gc"]);
    assert_eq!(lab.ok("cat", &[root]), "lent");
    node.unpublish(&volume).await.unwrap();
    // And no daemon of our own was started.
    let daemons = lab.processes().into_iter().filter(|p| p.contains("nix-daemon --option"));
    assert_eq!(daemons.count(), 1);
}

/// Has something else mounted over `hidden`.
fn elsewhere(hidden: &str) -> String {
    format!("mkdir -p {hidden}; mount -t tmpfs other {hidden};")
}

#[tokio::test]
async fn a_daemon_that_does_not_see_our_roots_is_refused() {
    let lab = lab!();
    let daemon = Daemon::start(&lab, &elsewhere("/nix/var/nix/gcroots"));
    let mut node = lab.starting_node(&["--nix-daemon-socket", &daemon.socket]);
    eventually("the refusal", || node.log().contains("nix-csi: "));
    assert_eq!(node.wait().code(), Some(1));
    let log = node.log();
    let said = log.lines().last().unwrap();
    let wanted = "nix-csi: the lent nix-daemon: finding a root in /nix/var/nix/gcroots/nix-csi";
    assert!(said.starts_with(wanted), "{said}");
    assert!(said.contains("Nix does not list it, so it would collect what pods use"), "{said}");
}

/// Most pods have no Secret: it serves them.
#[tokio::test]
async fn a_daemon_that_does_not_see_files_of_secrets_is_warned_of() {
    let lab = lab!();
    let run = lab.path("run");
    let daemon = Daemon::start(&lab, &elsewhere(run.to_str().unwrap()));
    let node = lab.node(&["--nix-daemon-socket", &daemon.socket]).await;
    let log = node.log();
    let said = log.lines().find(|line| line.contains("the lent nix-daemon does not see it"));
    let said = said.unwrap_or_else(|| panic!("{log}"));
    assert!(
        said.contains("WARN") && said.contains(&format!("{}/secrets", run.display())),
        "{said}"
    );
    assert!(said.contains("without the netrc of a request's Secret; give --run-dir"), "{said}");
    // Nothing of the look is left.
    assert_eq!(lab::names(&run.join("secrets")), [""; 0]);
    let volume = lab.volume("lent", &[("nixExpr", BUILT)]);
    node.publish(&volume).await.unwrap();
    assert_eq!(lab.ok("cat", &[volume.target.join("var/result").to_str().unwrap()]), "lent");
    node.unpublish(&volume).await.unwrap();
}
