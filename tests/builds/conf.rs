//! The operator's nix.conf, as a kubelet changes a mounted ConfigMap, while builds run.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::lab;
use crate::lab::{Gate, Kubelet, Lab, NO_IDLE, Node, Pace, Volume, until};
use crate::world::{assert_ends, daemon, is_alive};

/// A directory that is mounted, with one file.
struct ConfigMap {
    dir: PathBuf,
    version: usize,
}

impl ConfigMap {
    fn new(lab: &Lab, text: &str) -> Self {
        let dir = lab.path("etc");
        fs::create_dir(&dir).unwrap();
        let mut this = Self { dir, version: 0 };
        this.change(text);
        symlink("..data/nix.conf", this.dir.join("nix.conf")).unwrap();
        this
    }

    /// A new directory, and a rename over the link to it.
    fn change(&mut self, text: &str) {
        self.version += 1;
        let data = format!("..{}", self.version);
        fs::create_dir(self.dir.join(&data)).unwrap();
        fs::write(self.dir.join(&data).join("nix.conf"), text).unwrap();
        symlink(data, self.dir.join("..new")).unwrap();
        fs::rename(self.dir.join("..new"), self.dir.join("..data")).unwrap();
    }
}

/// A derivation for a machine with a feature.
fn needs(feature: &str, name: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         requiredSystemFeatures = [ \"{feature}\" ]; args = [ \"-c\" \"echo > $out\" ]; }}"
    )
}

fn volume(lab: &Lab, name: &str, expression: &str) -> Volume {
    lab.volume(name, &[("nixExpr", expression)])
}

/// Whether the daemon builds for one whose own settings it does not take.
fn daemon_builds(lab: &Lab, expression: &str) -> bool {
    let derivation = lab.ok("nix-instantiate", &["-E", expression]);
    let socket = format!("NIX_REMOTE=unix://{}", lab.path("run/nix-daemon/socket").display());
    let nobody = ["--reuid", "65534", "--clear-groups", "env", &socket, "HOME=/nonexistent"];
    let build = ["nix-store", "--realise", &derivation];
    lab.run("setpriv", &[&nobody[..], &build].concat()).status.success()
}

fn shows(node: &Node, line: &str) -> bool {
    node.metrics().lines().any(|found| found == line)
}

const REFUSED: &str = "nixcsi_config_refused{kind=\"nix-conf\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_conf_counts_and_a_build_goes_on() {
    let lab = lab!();
    // Others than root come to the socket.
    lab.ok("chmod", &["o+x", lab.dir.path().to_str().unwrap()]);
    let mut conf = ConfigMap::new(&lab, "extra-system-features = one\n");
    let file = conf.dir.join("nix.conf");
    let settings = [NO_IDLE, &["--nix-conf", file.to_str().unwrap()]].concat();
    let mut node = lab.node(&settings).await;
    let gate = Gate::new(&lab, "held");
    let held = volume(&lab, "held", &gate.expression());
    let kubelet = Kubelet::new(&node, &held, Pace::of_this_run());
    let changed = async {
        gate.started().await;
        let builder = gate.builders().remove(0);
        let old = daemon(&lab, "").unwrap();
        assert!(
            daemon_builds(&lab, &needs("one", "a")) && !daemon_builds(&lab, &needs("two", "b"))
        );

        // What Nix does not take: said, and nothing else changes.
        for (bad, said) in [
            ("extra-system-features = one two\nsandbix = true\n", "unknown setting 'sandbix'"),
            ("extra-system-features = one two\ncores = many\n", "'cores' has invalid value 'many'"),
            ("sandbox = maybe\n", "'sandbox' has invalid value 'maybe'"),
            ("extra-system-features = one two\ncores=2\n", "line 2: write NAME = VALUE"),
            ("access-tokens = github.com=ghp_s3cret\n", "name it with --access-tokens-file"),
        ] {
            conf.change(bad);
            until("the refusal", async || node.log().contains(said)).await;
        }
        assert!(shows(&node, &format!("{REFUSED} 1")));
        assert!(node.log().contains(file.to_str().unwrap()) && !node.log().contains("s3cret"));
        assert!(!daemon_builds(&lab, &needs("two", "b")));
        assert_eq!(daemon(&lab, ""), Some(old.clone()));

        conf.change("extra-system-features = one two\n");
        until("the new one to count", async || daemon_builds(&lab, &needs("two", "b"))).await;
        assert!(shows(&node, &format!("{REFUSED} 0")));
        assert!(shows(&node, "nixcsi_child_renewals_total{child=\"nix-daemon\"} 1"));
        assert!(shows(&node, "nixcsi_children_retired{child=\"nix-daemon\"} 1"));
        until("the former daemon's end", async || !is_alive(&lab, &old)).await;
        assert!(is_alive(&lab, &builder) && gate.runs() == 1);
        // Evaluators have it too.
        let two = volume(&lab, "two", &needs("two", "c"));
        node.publish(&two).await.unwrap();
        node.unpublish(&two).await.unwrap();
        gate.open();
    };
    tokio::join!(kubelet.until_published(), changed);
    kubelet.assert_only_retryable();
    assert_eq!(gate.runs(), 1);
    until("the former to be done", async || {
        shows(&node, "nixcsi_children_retired{child=\"nix-daemon\"} 0")
    })
    .await;
    assert_ends(&lab, &node, &held).await;

    // What was good last survives the driver, and what is bad is not more of a reason to fail.
    conf.change("nonsense\n");
    assert_eq!(node.stop(), Some(0));
    let mut node = lab.node(&settings).await;
    assert!(daemon_builds(&lab, &needs("two", "d")));
    assert_eq!(node.stop(), Some(0));
    // One that another version took is no reason not to take the next one.
    conf.change("extra-system-features = three\n");
    lab.ok("sh", &["-c", "echo sandbox = maybe > /nix/var/nix-csi/nix.conf"]);
    let mut node = lab.node(&settings).await;
    assert!(daemon_builds(&lab, &needs("three", "e")));
    assert_eq!(node.stop(), Some(0));
    conf.change("nonsense\n");
    // But without a last good one it is.
    lab.ok("rm", &["/nix/var/nix-csi/nix.conf"]);
    let mut node = lab.starting_node(&settings);
    assert!(!node.wait().success());
    assert!(node.log().contains("--nix-conf: "), "{}", node.log());
}

/// Whoever connects while there is no daemon waits for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_daemon_is_not_missed() {
    let lab = lab!();
    let node = lab.node(NO_IDLE).await;
    for n in 0..5 {
        let old = daemon(&lab, "").unwrap();
        lab.kill(&old);
        let volume = volume(&lab, "v", &needs("benchmark", &format!("n{n}")));
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
        until("the next daemon", async || daemon(&lab, &old).is_some()).await;
    }
    assert!(lab::names(&lab.path("targets")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_allow_new_privileges_costs_is_told() {
    for (privileges, cost) in
        [("least", "it has no effect"), ("all", "set-user-ID programs act as")]
    {
        let lab = lab!();
        let mut conf = ConfigMap::new(&lab, "cores = 2\n");
        let file = conf.dir.join("nix.conf");
        let settings = ["--nix-conf", file.to_str().unwrap(), "--privileges", privileges];
        let node = lab.node(&settings).await;
        let told = || {
            let log = node.log();
            log.lines().find(|line| line.contains("allow-new-privileges=true")).map(str::to_owned)
        };
        assert_eq!(told(), None);
        conf.change("allow-new-privileges = true\n");
        until("the warning", async || told().is_some()).await;
        let line = told().unwrap();
        assert!(line.contains("WARN") && line.contains(cost), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_builds_as_root_cost_is_told() {
    let lab = lab!();
    for (option, is_told) in [("build-users-group=nixbld", false), ("build-users-group=", true)] {
        let mut node = lab.node(&["--nix-option", option]).await;
        let log = node.log();
        let line = log.lines().find(|line| line.contains("build-users-group is empty"));
        assert_eq!(line.is_some_and(|line| line.contains("WARN")), is_told, "{log}");
        assert_eq!(node.stop(), Some(0));
    }
}
