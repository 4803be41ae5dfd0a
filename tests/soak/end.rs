//! What is left when every volume is gone.

use std::collections::BTreeMap;
use std::path::Path;

use crate::lab::{eventually, leftovers, names, valid};
use crate::summary::without_names;
use crate::world::World;

/// Where volumes, views, roots and uploads leave nothing, in /nix/var.
const EMPTY: [&str; 6] = [
    "nix-csi/volumes",
    "nix-csi/views",
    "nix-csi/uploads",
    "nix/gcroots/nix-csi/views",
    "nix/gcroots/nix-csi/builds",
    "nix/gcroots/nix-csi/uploads",
];

/// Blocking.
pub(crate) fn nothing_stays(world: &World) {
    let lab = &world.lab;
    assert_eq!(leftovers(lab), [""; 0]);
    let left = || -> Vec<String> {
        let of = |dir: &str| {
            let named = move |name: String| format!("{dir}/{name}");
            names(&lab.path("nix/var").join(dir)).into_iter().map(named).collect::<Vec<_>>()
        };
        EMPTY.iter().flat_map(|dir| of(dir)).collect()
    };
    waited("uploads, views and roots to go", || left().is_empty(), left);
    assert_eq!(lab.mounts_below(Path::new("/nix/var")), [""; 0]);
    let more = || -> Vec<String> {
        valid(lab).into_iter().filter(|path| !world.kept.contains(path)).collect()
    };
    waited("all to be collected that nothing holds", || more().is_empty(), more);
    assert_eq!(valid(lab), world.kept);
    // Nix forgets a path first, and then removes it.
    let in_the_way = || -> Vec<String> {
        let is_kept = |name: &String| world.kept.contains(&format!("/nix/store/{name}"));
        let there = names(&lab.path("nix/store")).into_iter();
        there.filter(|name| name != ".links" && !is_kept(name)).collect()
    };
    waited("the store's directory to be empty", || in_the_way().is_empty(), in_the_way);
    assert_eq!(lab.ok("find", &["/nix", "-name", ".nix-csi-*"]), "");
    lab.ok("nix-store", &["--verify", "--check-contents"]);
}

fn waited(what: &str, done: impl FnMut() -> bool, left: impl Fn() -> Vec<String>) {
    let wait = std::panic::AssertUnwindSafe(|| eventually(what, done));
    let waited = std::panic::catch_unwind(wait);
    assert!(waited.is_ok(), "waited in vain for {what}: {:?}", left());
}

impl World {
    /// The node's log on the way out, also when the last one did not start.
    pub(crate) async fn give_up(&self) {
        if self.is_running() {
            eprintln!("{}", self.summary().await);
        }
        let log = std::fs::read_to_string(self.lab.path("node.log")).unwrap();
        eprintln!("log of the node:\n{log}");
        self.forget_node();
    }

    /// Whether the nodes' own word is good.
    pub(crate) async fn assert_well(&self) {
        let log = self.node().await.log();
        let mut words = BTreeMap::<_, usize>::new();
        for line in log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")) {
            *words.entry(without_names(line)).or_default() += 1;
        }
        for (word, times) in &words {
            println!("  {times} × {word}");
        }
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{words:?}");
        for outcome in ["failed", "stalled", "busy"] {
            let name = format!("nixcsi_gc_cycles_total{{outcome=\"{outcome}\"}}");
            assert_eq!(self.metric(&name).await, 0, "{name}");
        }
        for name in [
            "nixcsi_gc_leaked_roots_total",
            "nixcsi_uploads_dropped_total",
            "nixcsi_unreadable_records_total",
            "nixcsi_view_paths_replaced_total",
        ] {
            assert_eq!(self.metric(name).await, 0, "{name}");
        }
    }
}
