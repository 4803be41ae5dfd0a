//! What these tests ask of a machine again and again.

pub use crate::lab::valid;
use crate::lab::{Lab, Node, node_binary};

/// A node that collects all the time what nobody has used for a second.
pub const EAGER: &[&str] = &[
    "--gc-older-than",
    "1s",
    "--gc-grace",
    "0s",
    "--gc-interval",
    "100ms",
    "--gc-look-interval",
    "100ms",
    "--gc-high-watermark",
    "100",
    "--keep-idle",
    "100ms",
];

/// The command's standard output, or its standard error.
pub fn gc(lab: &Lab, args: &[&str]) -> Result<String, String> {
    let output = lab.command(node_binary()).arg("gc").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// In the store's database.
pub fn change(lab: &Lab, sql: &str) {
    change_in(lab, "/nix/var/nix/db/db.sqlite", sql);
}

pub fn change_in(lab: &Lab, database: &str, sql: &str) {
    lab.inside(|| {
        let database = rusqlite::Connection::open(database).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        database.execute_batch(sql).unwrap();
    });
}

/// How many collections of the node came to this.
pub fn cycles(node: &Node, outcome: &str) -> u64 {
    let name = format!("nixcsi_gc_cycles_total{{outcome=\"{outcome}\"}}");
    node.metric(&name).unwrap()
}

/// Nix's own word on the store, contents and all.
pub fn assert_sound(lab: &Lab) {
    let output = lab.run("nix-store", &["--verify", "--check-contents"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_trouble = |line: &&str| {
        ["error", "disappeared", "modified", "not valid"].iter().any(|w| line.contains(w))
    };
    let trouble: Vec<_> = said.lines().filter(is_trouble).collect();
    assert!(output.status.success() && trouble.is_empty(), "{said}");
}
