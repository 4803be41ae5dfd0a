//! What goes on beside the node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval, interval_at};

use crate::sources;
use crate::summary::without_names;
use crate::world::{World, count};

const GARBAGE_EVERY: Duration = Duration::from_millis(400);
const COLLECT_EVERY: Duration = Duration::from_secs(5);

impl World {
    /// Made by Nix itself, and held by nobody: a collector may even take it from Nix, which then fails.
    pub(crate) async fn build(self: &Arc<Self>, expression: String) -> Option<String> {
        let world = self.clone();
        let build = move || {
            let settings = ["--option", "sandbox", "false", "--option", "substituters", ""];
            let what = ["--no-out-link", "-E", &expression];
            let output = world.lab.run("nix-build", &[&settings[..], &what].concat());
            if output.status.success() {
                return Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let why = said.lines().rfind(|line| line.contains("error")).unwrap_or(&said);
            world.note(format!("nix-build: {}", without_names(why)));
            None
        };
        tokio::task::spawn_blocking(build).await.unwrap()
    }
}

pub(crate) async fn garbage(world: Arc<World>) {
    let mut again = interval(GARBAGE_EVERY);
    let mut n = 0;
    while world.goes_on() {
        again.tick().await;
        n += 1;
        if n % 2 == 0 {
            world.build(sources::small(&format!("garbage-{n}"))).await;
        } else {
            let file = world.lab.path("nix/garbage");
            std::fs::write(&file, format!("{n}")).unwrap();
            let (adder, name) = (world.clone(), file.to_str().unwrap().to_owned());
            let add = move || adder.lab.ok("nix-store", &["--add", &name]);
            tokio::task::spawn_blocking(add).await.unwrap();
        }
        count(&world.counts.garbage);
    }
}

/// Somebody else's.
pub(crate) async fn collector(world: Arc<World>) {
    let mut again = interval_at(Instant::now() + COLLECT_EVERY, COLLECT_EVERY);
    loop {
        again.tick().await;
        if !world.goes_on() {
            return;
        }
        let collector = world.clone();
        let collect = move || collector.lab.ok("nix-store", &["--gc"]);
        tokio::task::spawn_blocking(collect).await.unwrap();
        count(&world.counts.foreign);
    }
}

pub(crate) async fn kills(world: Arc<World>, every: Duration) {
    let mut again = interval_at(Instant::now() + every, every);
    loop {
        let soon = tokio::time::timeout_at(world.end, again.tick()).await;
        // Not shortly before the end: it would be of no use.
        if soon.is_err() {
            return;
        }
        world.kill_node().await;
        world.start_node().await;
        count(&world.counts.kills);
    }
}
