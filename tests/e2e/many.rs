//! Many pods of one closure.

use std::fs;

use crate::cluster::Cluster;
use crate::leftovers::{OnNode, nothing_left};
use crate::programs::{deployment, package, pod};

#[test]
fn twenty_replicas_share_one_build_one_view_and_one_page_cache() {
    let cluster = Cluster::get();
    let space = cluster.space("replicas");
    let expression = package("replicas", "");
    let before = realisations(&cluster);
    space.apply(vec![deployment("replicas", 20, ("nixExpr", &expression))]);
    space.all_running("app=replicas", 20);
    let found = OnNode::now(&cluster);
    assert_eq!(found.mounts.len(), 20, "{found:?}");
    assert_eq!(found.views.len(), 1, "{found:?}");
    assert_eq!(found.records.len(), 20);
    assert_eq!(realisations(&cluster) - before, 1);
    let (largest, together) = text_of_busybox();
    // With a copy for each pod it would be twenty times as much.
    assert!(together < largest * 3 / 2, "{together} kB for all, {largest} kB for one");
    drop(space);
    nothing_left(&cluster);
}

/// Of the mappings of the store's busybox as a program, in all processes: the most that one has in
/// memory, and what all have with a page counted once however many share it (proc(5), smaps: Rss
/// and Pss), in kB.
fn text_of_busybox() -> (u64, u64) {
    let (mut largest, mut together) = (0, 0);
    for entry in fs::read_dir("/proc").unwrap() {
        let smaps = entry.unwrap().path().join("smaps");
        let mut is_text = false;
        for line in fs::read_to_string(smaps).unwrap_or_default().lines() {
            if let Some(rest) = line.strip_prefix("Rss:").filter(|_| is_text) {
                largest = largest.max(kilobytes(rest));
            } else if let Some(rest) = line.strip_prefix("Pss:").filter(|_| is_text) {
                together += kilobytes(rest);
            } else if line.contains(" r-xp ") || line.contains(" r--p ") || line.contains(" rw-p ")
            {
                is_text = line.contains(" r-xp ")
                    && line.contains("/nix/store/")
                    && line.ends_with("-busybox/bin/busybox");
            }
        }
    }
    assert!(largest > 0, "no process maps it");
    (largest, together)
}

fn kilobytes(text: &str) -> u64 {
    text.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// How often the driver has evaluated and built, in its life so far.
fn realisations(cluster: &Cluster) -> u64 {
    let path = "/api/v1/namespaces/nix-csi/pods";
    let pods = cluster.json(&["-n", "nix-csi", "get", "pods"]);
    let name = pods["items"][0]["metadata"]["name"].as_str().unwrap();
    let text = cluster.kubectl(&["get", "--raw", &format!("{path}/{name}:9809/proxy/metrics")]);
    let counts = text.lines().filter(|line| line.starts_with("nixcsi_realise_seconds_count"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn fifty_pods_come_and_go_in_three_rounds() {
    let cluster = Cluster::get();
    let space = cluster.space("rounds");
    let expression = package("rounds", "");
    for round in 0..3 {
        let pods =
            (0..50).map(|n| pod(&format!("p-{round}-{n}"), ("nixExpr", &expression), "serve"));
        space.apply(pods.collect());
        space.all_running("app=e2e", 50);
        assert_eq!(OnNode::now(&cluster).mounts.len(), 50);
        space.kubectl(&["delete", "pods", "-l", "app=e2e", "--wait=true", "--timeout=180s"]);
        nothing_left(&cluster);
    }
}
