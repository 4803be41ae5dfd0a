//! What these tests ask of a machine again and again.

use std::fs;
use std::time::Duration;

use crate::lab::{
    Cache, Call, Gate, Kubelet, Lab, NO_IDLE, Node, Volume, assert_nothing_left, eventually,
};

/// The call that was waiting got the result as soon as the builder was done.
pub(crate) fn assert_told_at_once(call: &Call, gate: &Gate) {
    let late = call.ended.duration_since(gate.end()).unwrap();
    assert!(late < Duration::from_secs(1), "{late:?} after the build's end");
}

/// The end of a volume: nothing of it stays in a machine whose node has [`NO_IDLE`].
pub(crate) async fn assert_ends(lab: &Lab, node: &Node, volume: &Volume) {
    node.unpublish(volume).await.unwrap();
    assert_nothing_left(lab);
    assert_no_strays(lab);
}

/// The node's own daemon, as a number in the machine.
pub(crate) fn daemon(lab: &Lab) -> String {
    let text = fs::read_to_string(lab.path("run/nix-daemon.pid")).unwrap_or_default();
    text.split(' ').next().unwrap().to_owned()
}

/// The daemon's process for the one command that runs.
pub(crate) fn worker(lab: &Lab) -> String {
    let all = lab.processes();
    let main = daemon(lab);
    let daemons = all.iter().filter(|line| line.contains(" nix-daemon "));
    let numbers = daemons.map(|line| line.split(' ').next().unwrap());
    let workers: Vec<_> = numbers.filter(|number| *number != main).collect();
    assert_eq!(workers.len(), 1, "{all:#?}");
    workers[0].to_owned()
}

pub(crate) fn is_alive(lab: &Lab, process: &str) -> bool {
    let alive = |line: &String| {
        let mut words = line.split(' ');
        words.next() == Some(process) && words.next() != Some("Z")
    };
    lab.processes().iter().any(alive)
}

/// Waits until the machine has no process but the node and its own daemon.
pub(crate) fn assert_no_strays(lab: &Lab) {
    let stray = |line: &String| {
        let number = line.split(' ').next();
        !line.contains("nix-csi node ") && number != Some(&*daemon(lab))
    };
    eventually("the last process to end", || !lab.processes().iter().any(stray));
}

/// A volume of two derivations, of which the first is built at once and the second waits for the test.
pub(crate) struct Chain {
    pub(crate) first: Gate,
    pub(crate) second: Gate,
    pub(crate) volume: Volume,
}

impl Chain {
    pub(crate) fn new(lab: &Lab) -> Self {
        let (first, second) = (Gate::new(lab, "first"), Gate::new(lab, "second"));
        first.open();
        let expression = second.after(&first.expression());
        Self { first, second, volume: lab.volume("pod", &[("nixExpr", &expression)]) }
    }

    /// The second one's builder, when it runs.
    pub(crate) async fn builder(&self) -> String {
        self.second.started().await;
        self.second.builders().remove(0)
    }

    /// After the kubelet's success: the first was built once, the second so many times.
    pub(crate) async fn ends(&self, lab: &Lab, node: &Node, kubelet: &Kubelet, runs: usize) {
        let calls = kubelet.calls();
        assert_eq!((self.first.runs(), self.second.runs()), (1, runs), "{calls:#?}");
        assert_ends(lab, node, &self.volume).await;
    }
}

/// A cache with a closure of `tests/data/closures.nix` that the machine's store does not have.
pub(crate) async fn filled(lab: &Lab, args: &[&str]) -> (Cache, String) {
    let cache = lab.cache().await;
    let root = lab.unrooted(args);
    cache.upload(lab, &root);
    lab.ok("nix-store", &["--gc"]);
    assert!(!lab.run("ls", &[&root]).status.success());
    (cache, root)
}

/// Settings of a node with these substituters, that keeps nothing.
pub(crate) fn with_caches(caches: &[&Cache], more: &[&str]) -> Vec<String> {
    let urls: Vec<_> = caches.iter().map(|cache| cache.url()).collect();
    let substituters = format!("substituters={}", urls.join(" "));
    let options = [&[&substituters, "require-sigs=false"], more].concat();
    let options = options.into_iter().flat_map(|option| ["--nix-option", option]);
    NO_IDLE.iter().copied().chain(options).map(str::to_owned).collect()
}

pub(crate) async fn node_with(lab: &Lab, settings: &[String]) -> Node {
    lab.node(&settings.iter().map(String::as_str).collect::<Vec<_>>()).await
}
