//! The chart in a cluster: what the API server says of it, and the driver's release as it comes, changes and goes.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, LONG, SOON, wait_until};
use crate::driver::reads;
use crate::leftovers::{OnNode, nothing_left};
use crate::programs::{deployment, package, pod};
use crate::startup::is_listed;

const CHART: &str = "deploy/chart";
const VALUES: &str = "tests/e2e/install/values.yaml";
/// How long a change of the release may take to be on the node.
const WAIT: [&str; 3] = ["--wait", "--timeout", "180s"];
/// What the pods of these tests say.
const HELLO: &str = "hello from release";
/// All that a release makes has it.
const OURS: &str = "app.kubernetes.io/part-of=nix-csi";

fn field(cluster: &Cluster, path: &str) -> String {
    let path = format!("jsonpath={path}");
    cluster.kubectl(&["-n", "nix-csi", "get", "daemonset", "nix-csi-node", "-o", &path])
}

/// Objects of the release, of every kind that the API server has; its namespace is not the release's.
fn objects(cluster: &Cluster) -> Vec<String> {
    let list = ["api-resources", "--verbs=list,delete", "-o", "name"];
    let kinds = cluster.kubectl(&list).split_whitespace().collect::<Vec<_>>().join(",");
    let get = ["get", &kinds, "-A", "-l", OURS, "-o", "name", "--ignore-not-found"];
    let found = cluster.kubectl(&get);
    found.lines().filter(|name| !name.starts_with("namespace/")).map(str::to_owned).collect()
}

/// The release as the other tests have it.
pub(crate) fn install(cluster: &Cluster) {
    let args = ["install", "nix-csi", CHART, "--create-namespace", "--values", VALUES];
    cluster.helm(&[&args[..], &WAIT].concat());
}

#[test]
fn a_release_is_upgraded_rolled_back_uninstalled_and_no_pod_notices() {
    let cluster = Cluster::get();
    let space = cluster.space("release");
    // Of other tests, and not the release's.
    cluster.kubectl(&["-n", "nix-csi", "delete", "--ignore-not-found", "configmap/nix-csi-policy"]);
    space.apply(vec![deployment("steady", 3, ("nixExpr", &package("release", "")))]);
    space.all_running("app=steady", 3);
    let pods = space.pods("app=steady");
    let before = OnNode::now(&cluster);

    let image = "{.spec.template.spec.containers[0].image}";
    let hold = "{.spec.template.spec.containers[0].env[?(@.name=='NIX_CSI_HOLD')].value}";
    let as_it_was = (field(&cluster, image), field(&cluster, hold));
    assert_eq!(as_it_was, ("localhost/nix-csi:e2e".to_owned(), String::new()));
    let other = ["--set", "image.tag=next,node.env.NIX_CSI_HOLD=50s,policy.preset=open"];
    cluster.helm(&[&["upgrade", "nix-csi", CHART, "--values", VALUES][..], &other, &WAIT].concat());
    let changed = (field(&cluster, image), field(&cluster, hold));
    assert_eq!(changed, ("localhost/nix-csi:next".to_owned(), "50s".to_owned()));
    assert!(objects(&cluster).contains(&"configmap/nix-csi-policy".to_owned()));
    reads(&space, &pods, HELLO);
    assert_eq!(OnNode::now(&cluster), before, "the new driver uses what is mounted");

    cluster.helm(&[&["rollback", "nix-csi"][..], &WAIT].concat());
    assert_eq!((field(&cluster, image), field(&cluster, hold)), as_it_was);
    assert!(!objects(&cluster).contains(&"configmap/nix-csi-policy".to_owned()));
    reads(&space, &pods, HELLO);
    assert_eq!(OnNode::now(&cluster), before, "and so does the old one");

    cluster.helm(&[&["uninstall", "nix-csi"][..], &WAIT].concat());
    let reinstalled = std::panic::catch_unwind(|| {
        wait_until("nothing of the release to be left", SOON, || objects(&cluster).is_empty());
        wait_until("the kubelet to forget the driver", SOON, || !is_listed(&cluster));
        reads(&space, &pods, HELLO);
        assert_eq!(OnNode::now(&cluster).mounts, before.mounts);
    });
    install(&cluster);
    reinstalled.unwrap();
    wait_until("the registration", SOON, || is_listed(&cluster));
    reads(&space, &pods, HELLO);
    assert_eq!(space.pods("app=steady"), pods, "none was replaced");
    assert_eq!(OnNode::now(&cluster), before, "the next driver takes over what is mounted");

    space.apply(vec![pod("late", ("nixExpr", &package("release", "")), "hello")]);
    space.succeeded("late");
    drop(space);
    nothing_left(&cluster);
}

/// What the API server has against objects that are sent to it, and not kept.
fn dry_run(cluster: &Cluster, text: &str) -> Result<String, String> {
    let mut command = Command::new(cluster.dir().join("kubectl"));
    command.args(["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]);
    command.args(["--field-manager=nix-csi-test", "--force-conflicts"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn the_api_server_takes_each_object_with_every_option() {
    let cluster = Cluster::get();
    let crds = Command::new("scripts/install-crds.sh").output().unwrap();
    assert!(crds.status.success(), "{crds:?}");
    let dir = String::from_utf8(crds.stdout).unwrap();
    let crds = ["podmonitors", "prometheusrules"]
        .map(|kind| format!("{}/monitoring.coreos.com_{kind}.yaml", dir.trim()));
    for crd in &crds {
        cluster.kubectl(&["apply", "--server-side", "-f", crd]);
        cluster.kubectl(&["wait", "--for=condition=Established", "-f", crd, "--timeout=30s"]);
    }
    let refused = std::panic::catch_unwind(|| {
        let mut options: Vec<_> = std::fs::read_dir("deploy/chart/ci")
            .unwrap()
            .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
            .collect();
        options.sort();
        assert!(options.len() > 5, "{options:?}");
        for file in &options {
            let text = cluster.helm(&["template", "nix-csi", CHART, "--values", file]);
            let count = text.lines().filter(|line| line.starts_with("kind: ")).count();
            let taken = dry_run(&cluster, &text).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(taken.lines().count(), count, "{file}: {taken}");
        }
        // It would say so.
        let text =
            cluster.helm(&["template", "nix-csi", CHART]).replace("podInfoOnMount", "podInfo");
        let error = dry_run(&cluster, &text).unwrap_err();
        assert!(error.contains(".spec.podInfo: field not declared"), "{error}");
    });
    for crd in &crds {
        cluster.kubectl(&["delete", "-f", crd]);
    }
    refused.unwrap();
}

/// The plain manifests are the chart's own, in both forms.
#[test]
fn plain_manifests_are_taken_as_they_are() {
    let cluster = Cluster::get();
    for variant in ["default", "cache"] {
        let dir = format!("deploy/manifests/{variant}");
        let kustomized = cluster.kubectl(&["kustomize", &dir]);
        let json = std::fs::read_to_string(format!("{dir}/nix-csi.json")).unwrap();
        let count =
            serde_json::from_str::<Value>(&json).unwrap()["items"].as_array().unwrap().len();
        for text in [kustomized, json] {
            let taken = dry_run(&cluster, &text).unwrap_or_else(|error| panic!("{dir}: {error}"));
            assert_eq!(taken.lines().count(), count, "{dir}: {taken}");
        }
    }
}

fn deploy(cluster: &Cluster, args: &[&str]) -> (bool, String) {
    run(cluster, "deploy/deploy.sh", &[&["--values", VALUES], args].concat())
}

/// A script with the cluster's own programs: whether it succeeds, and what it says.
fn run(cluster: &Cluster, script: &str, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(script);
    command.env("PATH", cluster.path(&[]));
    command.env("KUBECONFIG", cluster.dir().join("admin.kubeconfig")).stdin(Stdio::null());
    let output = command.args(args).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.success(), said.concat())
}

#[test]
fn deploying_without_a_release_asks_applies_and_removes_what_is_gone() {
    const POLICY: &str = "configmap/nix-csi-policy";
    let cluster = Cluster::get();
    let space = cluster.space("deployed");
    space.apply(vec![deployment("steady", 2, ("nixExpr", &package("release", "")))]);
    space.all_running("app=steady", 2);
    let pods = space.pods("app=steady");

    let (done, said) = deploy(&cluster, &["--yes"]);
    assert!(!done && said.contains("has a Helm release"), "{said}");
    cluster.helm(&[&["uninstall", "nix-csi"][..], &WAIT].concat());
    let deployed = std::panic::catch_unwind(|| {
        let (done, said) = deploy(&cluster, &["--yes", "--prune", "--set", "policy.preset=open"]);
        assert!(done, "{said}");
        assert!(objects(&cluster).contains(&POLICY.to_owned()));
        let bystander = ["-n", "nix-csi", "create", "configmap", "bystander"];
        cluster.kubectl(&bystander);

        let other = ["--prune", "--set", "node.env.NIX_CSI_HOLD=50s"];
        let (done, said) = deploy(&cluster, &other);
        assert!(!done && said.contains("--yes applies it"), "{said}");
        for line in ["+          value: 50s", "configmap/nix-csi-policy would be removed"] {
            assert!(said.lines().any(|said| said.trim_end() == line), "{line}: {said}");
        }
        assert!(!said.contains("bystander"), "{said}");
        assert!(objects(&cluster).contains(&POLICY.to_owned()), "nothing was asked");

        let (done, said) = deploy(&cluster, &[&["--yes"][..], &other].concat());
        assert!(done, "{said}");
        assert!(!objects(&cluster).contains(&POLICY.to_owned()));
        let hold = "{.spec.template.spec.containers[0].env[?(@.name=='NIX_CSI_HOLD')].value}";
        assert_eq!(field(&cluster, hold), "50s");
        cluster.kubectl(&["-n", "nix-csi", "delete", "configmap", "bystander"]);
        reads(&space, &pods, HELLO);
    });
    let text = cluster.helm(&["template", "nix-csi", CHART, "--values", VALUES]);
    let file = cluster.dir().join("release.yaml");
    std::fs::write(&file, text).unwrap();
    let delete = ["delete", "--ignore-not-found", "--timeout=60s", "-f", file.to_str().unwrap()];
    cluster.kubectl(&delete);
    cluster.kubectl(&["-n", "nix-csi", "delete", "--ignore-not-found", POLICY]);
    install(&cluster);
    deployed.unwrap();
    reads(&space, &pods, HELLO);
    drop(space);
    nothing_left(&cluster);
}

/// What a driver leaves on its node: where, and what is there.
fn left_on_node(cluster: &Cluster) -> String {
    let places = [
        "/run/nix-csi",
        "/var/lib/nix-csi/nix",
        "/var/lib/kubelet/plugins",
        "/var/lib/kubelet/plugins_registry",
    ];
    let find =
        ["find", places[0], places[1], places[2], places[3], "-mindepth", "1", "-maxdepth", "1"];
    cluster.on_node(&find)
}

#[test]
fn an_undeployed_driver_leaves_nothing_on_its_node() {
    let cluster = Cluster::get();
    let space = cluster.space("undeployed");
    space.apply(vec![pod("steady", ("nixExpr", &package("release", "")), "serve")]);
    space.running("steady");
    let undeploy = |args: &[&str]| run(&cluster, "deploy/undeploy.sh", args);

    let (done, said) = undeploy(&["--yes", "--store"]);
    assert!(!done && said.contains(&format!("{}/steady", space.name)), "{said}");
    reads(&space, &["steady".to_owned()], HELLO);
    space.kubectl(&["delete", "pod", "steady", "--timeout=60s"]);
    let (done, said) = undeploy(&[]);
    assert!(!done && said.contains("--yes does it"), "{said}");
    assert!(is_listed(&cluster));
    // A node that can't be cleaned: something of somebody's is mounted there, and stays.
    let other = "/var/lib/nix-csi/nix/var/nix-csi/other";
    cluster.on_node(&["mkdir", other]);
    cluster.on_node(&["mount", "-t", "tmpfs", "other", other]);
    let (done, said) = undeploy(&["--yes", "--timeout", "30"]);
    assert!(!done && said.contains("the driver is back"), "{said}");
    assert!(said.contains("nix-csi/other is still mounted"), "{said}");
    cluster.on_node(&["umount", other]);
    wait_until("the driver to be back", LONG, || is_listed(&cluster));

    let undeployed = std::panic::catch_unwind(|| {
        let (done, said) = undeploy(&["--yes", "--store"]);
        assert!(done && said.contains("every node is clean"), "{said}");
        assert_eq!(left_on_node(&cluster), "", "{said}");
        assert_eq!(objects(&cluster), [""; 0]);
        let mounts = cluster.on_node(&["cat", "/proc/self/mountinfo"]);
        assert!(!mounts.contains("/var/lib/nix-csi/nix"), "{mounts}");
        wait_until("the kubelet to forget the driver", SOON, || !is_listed(&cluster));
        // And what deploy.sh has made.
        let (done, said) = deploy(&cluster, &["--yes", "--prune"]);
        assert!(done, "{said}");
        let (done, said) = undeploy(&["--yes"]);
        assert!(done && said.contains("every node is clean"), "{said}");
        assert_eq!(objects(&cluster), [""; 0]);
        assert!(
            left_on_node(&cluster).lines().all(|path| path.starts_with("/var/lib/nix-csi/nix/"))
        );
    });
    install(&cluster);
    undeployed.unwrap();
    space.apply(vec![pod("late", ("nixExpr", &package("release", "")), "hello")]);
    space.succeeded("late");
    drop(space);
    nothing_left(&cluster);
}
