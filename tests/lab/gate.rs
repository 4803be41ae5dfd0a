//! A build that goes on when the test lets it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Lab, Pace};

/// Polls until `done`; a test that waits in vain fails by name.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let polled = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        while !done().await {
            again.tick().await;
        }
    };
    // Half a minute, and with real times as much longer.
    let patience = Pace::of_this_run().seconds(30 * 60);
    let ended = tokio::time::timeout(patience, polled).await;
    assert!(ended.is_ok(), "waited in vain for {what}");
}

/// A derivation whose builder notes that it runs, goes on when it is let, and notes its end.
pub struct Gate {
    dir: PathBuf,
    name: &'static str,
}

impl Gate {
    pub fn new(lab: &Lab, name: &'static str) -> Self {
        let gate = Self { dir: lab.path("nix/gates"), name };
        fs::create_dir_all(&gate.dir).unwrap();
        // Builders are other users, and not the same one each time.
        fs::set_permissions(&gate.dir, fs::Permissions::from_mode(0o1777)).unwrap();
        for notes in ["runs", "ends"] {
            fs::write(gate.file(notes), "").unwrap();
            fs::set_permissions(gate.file(notes), fs::Permissions::from_mode(0o666)).unwrap();
        }
        gate
    }

    pub fn expression(&self) -> String {
        self.derivation("[ ]", &self.waiting())
    }

    /// The same on top of what another expression builds.
    pub fn after(&self, other: &str) -> String {
        self.derivation(&format!("[ ({other}) ]"), &self.waiting())
    }

    /// The same, but it lets itself after a while.
    pub fn timed(&self, wait: Duration) -> String {
        self.derivation("[ ]", &format!("sleep {}", wait.as_secs_f64()))
    }

    fn waiting(&self) -> String {
        format!("while [ ! -e /nix/gates/{}.open ]; do sleep 0.02; done", self.name)
    }

    fn derivation(&self, needs: &str, wait: &str) -> String {
        let name = self.name;
        format!(
            r#"derivation {{
              name = "{name}";
              system = builtins.currentSystem;
              builder = "/bin/sh";
              PATH = "/bin:/usr/bin";
              needs = {needs};
              args = [ "-c" ''
                : {name}.gate
                echo $$ >> /nix/gates/{name}.runs
                {wait}
                echo {name} > $out
                date +%s.%N >> /nix/gates/{name}.ends
              '' ];
            }}"#
        )
    }

    /// How often the builder was started.
    pub fn runs(&self) -> usize {
        self.builders().len()
    }

    /// The builders that there were, by their numbers in the machine.
    pub fn builders(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.file("runs")).unwrap();
        runs.lines().map(str::to_owned).collect()
    }

    /// When the builder came to its end, once in all.
    pub fn end(&self) -> SystemTime {
        let ends = fs::read_to_string(self.file("ends")).unwrap();
        let seconds = ends.trim().parse().unwrap_or_else(|e| panic!("one end: {ends:?}: {e}"));
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    pub async fn started(&self) {
        self.started_again(1).await;
    }

    pub async fn started_again(&self, times: usize) {
        until("the build to start", async || self.runs() >= times).await;
    }

    pub fn open(&self) {
        fs::write(self.file("open"), "").unwrap();
    }

    /// Processes of the builder, and those that were told to start it.
    pub fn processes(&self, lab: &Lab) -> Vec<String> {
        let needle = format!("{}.gate", self.name);
        lab.processes().into_iter().filter(|line| line.contains(&needle)).collect()
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("{}.{kind}", self.name))
    }
}
