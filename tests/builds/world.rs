//! What these tests ask of a machine again and again.

use std::time::Duration;

use tokio::time::{interval, timeout};

use crate::lab::{
    Cache, Call, Gate, Kubelet, Lab, NO_IDLE, Node, Pace, Volume, assert_nothing_left,
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
    assert_no_strays(lab).await;
}

/// A process of the machine.
pub(crate) struct Process {
    pub(crate) number: String,
    state: String,
    arguments: Vec<String>,
}

fn processes(lab: &Lab) -> Vec<Process> {
    let parse = |line: String| {
        let mut words = line.split(' ').map(str::to_owned);
        let (number, state) = (words.next().unwrap(), words.next().unwrap());
        Process { number, state, arguments: words.collect() }
    };
    lab.processes().into_iter().map(parse).collect()
}

impl Process {
    fn is(&self, program: &str, mut first: impl FnMut(&str) -> bool) -> bool {
        let [name, argument, ..] = &self.arguments[..] else { return false };
        name.rsplit('/').next() == Some(program) && first(argument)
    }

    fn is_node(&self) -> bool {
        self.is("nix-csi", |command| command == "node")
    }

    /// The one that waits for connections, or the guard that started it.
    fn is_of_the_daemon(&self) -> bool {
        let starts_it = || self.arguments.iter().any(|word| word.ends_with("nix-daemon"));
        self.is("nix-daemon", |option| option.starts_with("--"))
            || self.is("nix-csi", |command| command == "guard") && starts_it()
    }

    /// The daemon's process for one client, whose number Nix puts among its arguments.
    fn is_worker(&self) -> bool {
        self.is("nix-daemon", |client| client.parse::<u32>().is_ok())
    }
}

/// The daemon of the node, other than `last`; none while there is none.
pub(crate) fn daemon(lab: &Lab, last: &str) -> Option<String> {
    let is_daemon = |process: &Process| process.is("nix-daemon", |first| first.starts_with("--"));
    let mut daemons = processes(lab).into_iter().filter(is_daemon).map(|process| process.number);
    daemons.find(|number| number != last)
}

/// The daemon's process for the one command that runs.
pub(crate) fn worker(lab: &Lab) -> String {
    let workers: Vec<_> = processes(lab).into_iter().filter(Process::is_worker).collect();
    assert_eq!(workers.len(), 1, "{:#?}", lab.processes());
    workers[0].number.clone()
}

pub(crate) fn is_alive(lab: &Lab, number: &str) -> bool {
    processes(lab).iter().any(|process| process.number == number && process.state != "Z")
}

/// Waits until the machine has no process but the node and its own daemon.
pub(crate) async fn assert_no_strays(lab: &Lab) {
    assert_only(lab, |process| process.is_node() || process.is_of_the_daemon()).await;
}

/// Waits until the machine has no process at all.
pub(crate) async fn assert_no_processes(lab: &Lab) {
    assert_only(lab, |_| false).await;
}

async fn assert_only(lab: &Lab, wanted: impl Fn(&Process) -> bool) {
    let gone = async {
        let mut again = interval(Duration::from_millis(20));
        while !processes(lab).iter().all(&wanted) {
            again.tick().await;
        }
    };
    let gone = timeout(Duration::from_secs(20), gone).await;
    assert!(gone.is_ok(), "still there: {:#?}", lab.processes());
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

/// 20 paths, three of them with 1 MB and the others small.
pub(crate) const PATHS: &[&str] =
    &["--arg", "paths", "20", "--arg", "files", "20", "--arg", "bytes", "3000000"];

/// A cache with a closure of `tests/data/closures.nix` that the machine's store does not have.
pub(crate) async fn filled(lab: &Lab, args: &[&str]) -> (Cache, String) {
    let cache = lab.cache().await;
    let root = lab.unrooted(args);
    cache.upload(lab, &root);
    lab.ok("nix-store", &["--gc"]);
    assert!(!lab.run("ls", &[&root]).status.success());
    (cache, root)
}

/// Settings of a node whose waits are as short as the kubelet's, and that keeps nothing.
pub(crate) fn paced(pace: Pace) -> Vec<String> {
    let wait = |setting: &str, seconds| {
        [setting.to_owned(), format!("{}ms", pace.seconds(seconds).as_millis())]
    };
    let mut settings: Vec<_> = NO_IDLE.iter().copied().map(str::to_owned).collect();
    settings.extend(wait("--hold", 100));
    settings.extend(wait("--failure-backoff", 10));
    settings.extend(wait("--failure-backoff-max", 300));
    settings.extend(wait("--probe-memory", 30));
    // Answers take as long as ever.
    settings.extend(["--probe-timeout", "2s"].map(str::to_owned));
    let absent = pace.seconds(30).as_secs().max(1);
    settings.extend(nix_option(&format!("narinfo-cache-negative-ttl={absent}")));
    settings
}

pub(crate) fn nix_option(option: &str) -> [String; 2] {
    ["--nix-option".to_owned(), option.to_owned()]
}

/// The same with these substituters, unsigned paths and all.
pub(crate) fn with_caches(pace: Pace, caches: &[&Cache]) -> Vec<String> {
    let urls: Vec<_> = caches.iter().map(|cache| cache.url()).collect();
    let mut settings = paced(pace);
    settings.extend(nix_option(&format!("substituters={}", urls.join(" "))));
    settings.extend(nix_option("require-sigs=false"));
    settings
}

pub(crate) async fn node_with(lab: &Lab, settings: &[String]) -> Node {
    lab.node(&settings.iter().map(String::as_str).collect::<Vec<_>>()).await
}
