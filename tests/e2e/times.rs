//! From a pod's creation until its process starts: with a volume of ours, with an emptyDir, and with the
//! same closure as an image that was imported beforehand. Nothing is asserted but that all run; the
//! figures go to `target/e2e-times.json`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{Cluster, SOON, Space, wait_until};
use crate::leftovers::{OnNode, nothing_left};
use crate::pods::root_of;
use crate::programs::pod;

const ROUNDS: usize = 15;
const PATHS: usize = 60;
const IMAGE: &str = "localhost/closure:e2e";

/// A package with sixty more paths in its closure: 2,400 files, 120 MB.
fn large_package() -> String {
    let tail = r#"
  files = n: run "files-${toString n}" ''
    /bin/busybox mkdir -p $out
    for i in $(/bin/busybox seq 40); do
      /bin/busybox dd if=/dev/urandom of=$out/$i bs=50000 count=1 2>/dev/null
    done
  '';
in"#;
    let package = crate::programs::package("large", "echo ${toString (map files NUMBERS)}");
    // Into the text, so that they are references.
    let package = package.replace("echo ${", "all='${").replace("NUMBERS)}", "NUMBERS)}'");
    let package = package.replace("echo \"of large\"", "echo \"of large $all\"");
    let numbers: Vec<_> = (0..PATHS).map(|n| n.to_string()).collect();
    let package = package.replace("NUMBERS", &format!("[ {} ]", numbers.join(" ")));
    package.replacen("\nin", tail, 1)
}

/// Sees the namespace's pods change, with no time between a change and its line.
struct Watch {
    kubectl: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn new(space: &Space<'_>) -> Self {
        let mut kubectl = space.watch_pods().stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(kubectl.stdout.take().unwrap());
        Self { kubectl, lines }
    }

    fn until_running(&mut self, name: &str) {
        let wanted = format!("{name} Running");
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the watch ended");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Until the container's process has started. (The kubelet looks for what has changed once a second, so
/// the phase says the same for all that take less.)
fn seconds(space: &Space<'_>, watch: &mut Watch, pod: Value) -> f64 {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let began = uptime();
    space.apply(vec![pod]);
    watch.until_running(&name);
    let uid = space.kubectl(&["get", "pod", &name, "-o", "jsonpath={.metadata.uid}"]);
    let took = start_of(&uid) - began;
    space.delete_pod(&name);
    took
}

/// Seconds since boot, in hundredths: proc(5).
fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// When the pod's own process started, in seconds since boot.
fn start_of(uid: &str) -> f64 {
    let read = |entry: &Path, file: &str| fs::read(entry.join(file)).unwrap_or_default();
    let starts = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let process = entry.unwrap().path();
        let group = String::from_utf8_lossy(&read(&process, "cgroup")).into_owned();
        let command = String::from_utf8_lossy(&read(&process, "cmdline")).replace('\0', " ");
        // The other one of the pod is its sandbox's.
        if !group.contains(uid) || command.contains("sleep 2147483647") {
            return None;
        }
        let stat = String::from_utf8_lossy(&read(&process, "stat")).into_owned();
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(19)?.parse::<f64>().ok()
    });
    // Clock ticks, of which every Linux has a hundred a second.
    starts.reduce(f64::min).expect("the pod has a process") / 100.0
}

fn with_image(name: &str, image: &str, command: &Value) -> Value {
    let mut pod = pod(name, ("storePath", ""), "serve");
    let container = &mut pod["spec"]["containers"][0];
    container["image"] = image.into();
    container["command"] = command.clone();
    container["volumeMounts"] = json!([{ "name": "empty", "mountPath": "/empty" }]);
    pod["spec"]["volumes"] = json!([{ "name": "empty", "emptyDir": {} }]);
    pod
}

/// Makes an image of the closure, as the store has it, and loads it into the node.
fn import(cluster: &Cluster, root: &str) -> f64 {
    let dir = tempfile::Builder::new().tempdir_in(cluster.dir()).unwrap();
    let nix = cluster.dir().join("state/nix-csi/nix");
    let tree = dir.path().join("tree/nix");
    fs::create_dir_all(tree.join("store")).unwrap();
    fs::create_dir_all(tree.join("var")).unwrap();
    let text = fs::read_to_string(nix.join(root.strip_prefix("/nix/").unwrap()).join("share/text"));
    let text = text.unwrap();
    let mut paths: Vec<_> = text.split_whitespace().filter(|w| w.starts_with("/nix/")).collect();
    paths.push(root);
    assert_eq!(paths.len(), PATHS + 1, "{text}");
    let busybox = fs::read_dir(nix.join("store")).unwrap().map(|entry| entry.unwrap().path());
    let busybox = busybox.filter(|path| path.to_str().unwrap().ends_with("-busybox"));
    let all = paths.iter().map(|path| nix.join(path.strip_prefix("/nix/").unwrap())).chain(busybox);
    let copied = Command::new("cp").arg("-a").args(all).arg(tree.join("store")).status().unwrap();
    assert!(copied.success());
    std::os::unix::fs::symlink(root, tree.join("var/result")).unwrap();
    let archive = dir.path().join("closure.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster/archive.py");
    let mut made = Command::new(script);
    made.arg(&archive).arg(IMAGE).arg("--from").arg(dir.path().join("tree"));
    assert!(made.status().unwrap().success());
    let began = Instant::now();
    cluster.load_image(&archive);
    began.elapsed().as_secs_f64()
}

fn row(name: &str, alternative: &str, mut figures: Vec<f64>) -> Value {
    figures.sort_by(f64::total_cmp);
    let at = |share: usize| {
        let at = (figures.len() * share / 100).min(figures.len() - 1);
        (figures[at] * 1000.0).round() / 1000.0
    };
    json!({ "name": name, "closure": "63 paths, 2,400 files, 120 MB", "alternative": alternative,
        "n": figures.len(), "unit": "s", "p50": at(50), "p90": at(90), "p99": at(99) })
}

#[test]
fn from_creation_to_start() {
    let cluster = Cluster::get();
    let space = cluster.space("times");
    let expression = large_package();
    let holder = pod("holder", ("nixExpr", &expression), "serve");
    space.apply(vec![holder]);
    wait_until("the build", Duration::from_secs(240), || space.phase("holder") == "Running");
    let root = root_of(&cluster, "holder");
    let imported = import(&cluster, &root);
    let serve = json!(["/nix/var/result/bin/serve"]);
    let mut watch = Watch::new(&space);
    let mut all: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        let name = |kind: &str| format!("{kind}-{round}");
        let sleep = json!(["/bin/busybox", "sleep", "100000"]);
        let empty = with_image(&name("empty"), "localhost/busybox:e2e", &sleep);
        let image = with_image(&name("image"), IMAGE, &serve);
        let ours = pod(&name("store"), ("storePath", &root), "serve");
        for (figures, pod) in all.iter_mut().zip([ours, empty, image]) {
            figures.push(seconds(&space, &mut watch, pod));
        }
    }
    // The first volume on a node whose store has the closure already: the view has to be made.
    let mut cold = Vec::new();
    space.delete_pod("holder");
    for round in 0..5 {
        wait_until("no view", SOON, || OnNode::now(&cluster).views.is_empty());
        let first = pod(&format!("first-{round}"), ("storePath", &root), "serve");
        cold.push(seconds(&space, &mut watch, first));
    }
    let [ours, empty, image] = all;
    let name = "pod creation to start";
    let rows = [
        row(name, "", ours),
        row("pod creation to start, first of its closure", "", cold),
        row(name, "emptyDir", empty),
        row(name, "the closure as an image, imported beforehand", image),
        row("that image's import", "", vec![imported]),
    ];
    for row in &rows {
        println!("{row}");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e-times.json");
    fs::write(file, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    drop((watch, space));
    nothing_left(&cluster);
}
