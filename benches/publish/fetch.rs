//! A closure that a binary cache has and the node has not: a publish of it, beside Nix's own commands, and what the disk
//! alone takes for as many bytes.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::alternatives::synced;
use crate::block_on;
use crate::lab::{Cache, Lab};
use crate::report::{Report, Row};

const NAME: &str = "publish-fetched";
const CLOSURE: &str = "fetched";
/// Of 60 paths, as `medium`.
const PATHS: &str = "60";
const FILES: &str = "5000";
const BYTES: &str = "200000000";

pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let cache = runtime.block_on(lab.cache());
    let node = lab.starting_node(&[
        "--nix-option",
        &cache.substituters(),
        "--nix-option",
        "require-sigs=false",
    ]);
    block_on(lab, node.ready());
    let bytes = vec![1; BYTES.parse().unwrap()];
    for round in 0..rounds {
        let absent = |who: &str| absent(lab, &cache, &format!("{who}-{round}"));
        let path = absent("ours");
        let volume = lab.volume("fetched", &[("storePath", &path)]);
        let began = Instant::now();
        block_on(lab, node.publish(&volume)).unwrap();
        report.add(Row::ours(NAME, CLOSURE), began.elapsed());
        block_on(lab, node.unpublish(&volume)).unwrap();

        let path = absent("copy");
        let took = nix(lab, &["copy", "--from", &cache.url(), "--no-check-sigs", &path]);
        report.add(Row::other(NAME, CLOSURE, "nix copy"), took);

        let path = absent("build");
        let substituters = cache.url();
        let options = ["--option", "substituters", &substituters];
        let rest = ["--option", "require-sigs", "false", "--no-link", &path];
        let took = nix(lab, &[&["build"][..], &options, &rest].concat());
        report.add(Row::other(NAME, CLOSURE, "nix build"), took);

        report.add(Row::other(NAME, CLOSURE, "the disk alone"), lab.inside(|| synced(&bytes)));
    }
}

/// Of a closure that is in the cache alone.
fn absent(lab: &Lab, cache: &Cache, seed: &str) -> String {
    let sizes = ["--arg", "paths", PATHS, "--arg", "files", FILES, "--arg", "bytes", BYTES];
    let path = lab.unrooted(&[&sizes[..], &["--argstr", "seed", seed]].concat());
    cache.upload(lab, &path);
    let closure = lab.ok("nix-store", &["--query", "--requisites", &path]);
    let paths: Vec<_> = closure.lines().collect();
    lab.ok("nix-store", &[&["--delete"][..], &paths].concat());
    assert!(!lab.inside(|| Path::new(&path).try_exists().unwrap()));
    path
}

fn nix(lab: &Lab, args: &[&str]) -> Duration {
    let began = Instant::now();
    lab.ok("nix", &[&["--extra-experimental-features", "nix-command"][..], args].concat());
    began.elapsed()
}
