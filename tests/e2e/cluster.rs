//! The cluster that the script has made, through the programs that a person would use.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// On these machines a pod starts in two seconds, or in ten.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const LONG: Duration = Duration::from_secs(240);

pub(crate) const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    dir: PathBuf,
}

/// A namespace of one test's own; it goes with the test.
pub(crate) struct Space<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) name: String,
}

/// Polls until there is an answer; a test that waits in vain fails by name.
pub(crate) fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        std::thread::park_timeout(POLL);
    }
}

pub(crate) fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    wait(what, limit, || done().then_some(()));
}

/// Arguments of a `kubectl` that runs this in the driver of the node.
pub(crate) fn in_driver<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["-n", "nix-csi", "exec", "daemonset/nix-csi-node", "--"], args].concat()
}

/// What a program that must succeed says.
pub(crate) fn ok(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

impl Cluster {
    pub(crate) fn get() -> Self {
        let dir = std::env::var_os("NIX_CSI_E2E_DIR");
        Self {
            dir: dir.expect("run these tests by scripts/e2e.sh, which makes the cluster").into(),
        }
    }

    /// Where its state is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `PATH` with the cluster's own programs before the machine's, and others before those.
    pub(crate) fn path(&self, first: &[PathBuf]) -> OsString {
        let machines = std::env::var_os("PATH").unwrap();
        let dirs = first.iter().cloned().chain([self.dir.clone()]);
        std::env::join_paths(dirs.chain(std::env::split_paths(&machines))).unwrap()
    }

    pub(crate) fn load_image(&self, archive: &Path) {
        self.script("load-image.sh", &[archive.to_str().unwrap()]);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.join("kubectl"));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What a `kubectl` that must succeed says.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        ok(&format!("kubectl {}", args.join(" ")), &self.command(args).output().unwrap())
    }

    /// What it says if it succeeds.
    pub(crate) fn ask(&self, args: &[&str]) -> Option<String> {
        let output = self.command(args).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).unwrap()
    }

    /// What a Helm that must succeed says of the driver's release.
    pub(crate) fn helm(&self, args: &[&str]) -> String {
        let config = self.dir.join("admin.kubeconfig");
        let mut command = Command::new(self.dir.join("helm"));
        command.arg("--kubeconfig").arg(config).args(["--namespace", "nix-csi"]);
        ok(&format!("helm {}", args.join(" ")), &command.args(args).output().unwrap())
    }

    /// The release as these files of tests/e2e/install have it; waits for nothing.
    pub(crate) fn upgrade(&self, values: &[&str]) {
        self.upgrade_with(values, &[]);
    }

    /// The same with more arguments.
    pub(crate) fn upgrade_with(&self, values: &[&str], more: &[&str]) {
        let files: Vec<_> = values.iter().map(|name| format!("tests/e2e/install/{name}")).collect();
        let mut args = vec!["upgrade", "nix-csi", "deploy/chart"];
        for file in &files {
            args.extend(["--values", file]);
        }
        args.extend(more);
        self.helm(&args);
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.apply_text(&list.to_string());
    }

    /// What a file says.
    pub(crate) fn apply_text(&self, text: &str) {
        self.apply_with(&[], text);
    }

    fn apply_with(&self, args: &[&str], text: &str) {
        let mut command = Command::new(self.dir.join("kubectl"));
        command.args(args).args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        ok("kubectl apply", &child.wait_with_output().unwrap());
    }

    fn script(&self, name: &str, args: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster").join(name);
        let mut command = Command::new(script);
        command.arg(&self.dir).args(args).stdin(Stdio::null());
        ok(&format!("{name} {}", args.join(" ")), &command.output().unwrap())
    }

    /// Runs a program in the node's namespaces.
    pub(crate) fn on_node(&self, args: &[&str]) -> String {
        self.script("on-node.sh", args)
    }

    /// `stop`, `start` or `restart` one of the cluster's programs.
    pub(crate) fn component(&self, verb: &str, name: &str) {
        self.script("component.sh", &[verb, name]);
    }

    /// A fresh namespace, with a service account that pods can use.
    pub(crate) fn space(&self, theme: &str) -> Space<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{theme}-{}-{number}", std::process::id());
        self.kubectl(&["create", "namespace", &name]);
        let space = Space { cluster: self, name };
        wait_until("the default service account", SOON, || {
            space.ask(&["get", "serviceaccount", "default"]).is_some()
        });
        space
    }
}

impl Space<'_> {
    fn within<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["-n", &self.name], args].concat()
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&self.within(args))
    }

    pub(crate) fn ask(&self, args: &[&str]) -> Option<String> {
        self.cluster.ask(&self.within(args))
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.cluster.json(&self.within(args))
    }

    pub(crate) fn apply(&self, mut objects: Vec<Value>) {
        for object in &mut objects {
            object["metadata"]["namespace"] = Value::from(self.name.as_str());
        }
        self.cluster.apply(&objects);
    }

    /// What a file says that names no namespace.
    pub(crate) fn apply_text(&self, text: &str) {
        self.cluster.apply_with(&self.within(&[]), text);
    }

    /// A `kubectl` that says a line, name and phase, for each change of a pod.
    pub(crate) fn watch_pods(&self) -> Command {
        let path = "jsonpath={.metadata.name}{\" \"}{.status.phase}{\"\\n\"}";
        self.cluster.command(&self.within(&["get", "pods", "--watch", "-o", path]))
    }

    pub(crate) fn phase(&self, pod: &str) -> String {
        let path = "jsonpath={.status.phase}";
        self.ask(&["get", "pod", pod, "-o", path]).unwrap_or_default()
    }

    /// Waits for the pod's end and gives its log.
    pub(crate) fn succeeded(&self, pod: &str) -> String {
        wait_until(&format!("the end of {pod}: {}", self.why(pod)), SOON, || {
            let phase = self.phase(pod);
            let said = || self.ask(&["logs", pod]).unwrap_or_default();
            assert_ne!(phase, "Failed", "{}\n{}", self.why(pod), said());
            phase == "Succeeded"
        });
        self.kubectl(&["logs", pod])
    }

    pub(crate) fn running(&self, pod: &str) {
        wait_until(&format!("{pod} to run"), SOON, || self.phase(pod) == "Running");
    }

    /// What a person would look at.
    pub(crate) fn why(&self, pod: &str) -> String {
        self.ask(&["describe", "pod", pod]).unwrap_or_default()
    }

    /// Names of the pods with this label.
    pub(crate) fn pods(&self, selector: &str) -> Vec<String> {
        let list = self.json(&["get", "pods", "-l", selector]);
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        list["items"].as_array().unwrap().iter().map(name).collect()
    }

    /// Waits until so many pods with this label run.
    pub(crate) fn all_running(&self, selector: &str, count: usize) {
        wait_until(&format!("{count} pods with {selector} to run"), LONG, || {
            let phases = "jsonpath={.items[*].status.phase}";
            let said = self.ask(&["get", "pods", "-l", selector, "-o", phases]);
            said.is_some_and(|said| said.split(' ').filter(|p| *p == "Running").count() == count)
        });
    }

    /// Deletes the pod and waits until the API server has it no more.
    pub(crate) fn delete_pod(&self, pod: &str) {
        self.kubectl(&["delete", "pod", pod, "--wait=true"]);
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Enough to see what went wrong, of fifty pods too.
            let said = self.ask(&["get", "pods,events"]).unwrap_or_default();
            said.lines().take(60).for_each(|line| eprintln!("{line}"));
        }
        let args = ["delete", "namespace", &self.name, "--wait=true", "--timeout=120s"];
        let gone = self.cluster.ask(&args).is_some();
        assert!(gone || std::thread::panicking(), "the namespace {} stays", self.name);
    }
}
