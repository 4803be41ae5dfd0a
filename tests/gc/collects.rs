//! Collections of a running node, and of a store that nothing serves.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lab;
use crate::lab::until;
use crate::world::{EAGER, assert_sound, change_in, gc, valid};

fn number(said: &Value, key: &str) -> u64 {
    said[key].as_u64().unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_plain_store_is_collected_as_it_was_said() {
    let lab = lab!();
    let kept = lab.closure(&["--argstr", "seed", "kept"]);
    let gone = lab.unrooted(&["--argstr", "seed", "gone", "--arg", "bytes", "3000000"]);
    let young = gc(&lab, &["-o", "json"]).unwrap();
    assert_eq!(number(&json(&young), "deleted"), 0, "all is younger than an hour");

    let all = ["--older-than", "0s", "-o", "json"];
    let told = json(&gc(&lab, &[&all[..], &["--dry-run"]].concat()).unwrap());
    let named: BTreeSet<String> = told["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path["path"].as_str().unwrap().to_owned())
        .collect();
    assert!(named.contains(&gone) && !named.contains(&kept));
    let before = valid(&lab);
    let done = json(&gc(&lab, &all).unwrap());
    assert_eq!(&before - &valid(&lab), named);
    assert_eq!(number(&done, "deleted"), named.len() as u64);
    assert_eq!(number(&done, "freedBytes"), number(&told, "frees"));
    assert!(number(&told, "frees") > 3_000_000);
    lab.ok("nix-store", &["--check-validity", &kept]);
    assert_sound(&lab);
    assert_eq!(number(&json(&gc(&lab, &all).unwrap()), "deleted"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_what_is_mounted_and_takes_what_was() {
    let lab = lab!();
    let node = lab.node(EAGER).await;
    let mounted = lab.unrooted(&["--argstr", "seed", "mounted"]);
    let stays = lab.volume("stays", &[("storePath", &mounted)]);
    node.publish(&stays).await.unwrap();
    let used = lab.unrooted(&["--argstr", "seed", "used"]);
    let goes = lab.volume("goes", &[("storePath", &used)]);
    node.publish(&goes).await.unwrap();
    let needed: Vec<String> =
        lab.ok("nix-store", &["-qR", &mounted]).lines().map(str::to_owned).collect();
    node.unpublish(&goes).await.unwrap();
    until("the unused closure to go", async || !valid(&lab).contains(&used)).await;
    let left = valid(&lab);
    assert!(needed.iter().all(|path| left.contains(path)));
    until("the collection to be told", async || node.log().contains("garbage collected: ")).await;
    let count = |name: &str| node.metric::<u64>(name).unwrap();
    assert!(count("nixcsi_gc_deleted_paths_total") > 0);
    assert!(count("nixcsi_gc_freed_bytes_total") > 0);
    assert!(count("nixcsi_gc_cycles_total{outcome=\"ok\"}") > 1);
    assert_eq!(count("nixcsi_gc_cycles_total{outcome=\"failed\"}"), 0);
    node.unpublish(&stays).await.unwrap();
    until("the other one to go", async || !valid(&lab).contains(&mounted)).await;
    // The index says so to everybody, and forgets in its time.
    let dead = gc(&lab, &["--dry-run", "--older-than", "0s", "-o", "json"]).unwrap();
    assert!(!dead.contains(&mounted));
    assert_sound(&lab);
}

/// What a node has noted counts for `nix-csi gc`, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_noted_and_survives_the_node() {
    let lab = lab!();
    let mut node = lab.node(&["--keep-idle", "100ms"]).await;
    let (used, unused) = (
        lab.unrooted(&["--argstr", "seed", "used"]),
        lab.unrooted(&["--argstr", "seed", "unused"]),
    );
    let volume = lab.volume("v", &[("storePath", &used)]);
    node.publish(&volume).await.unwrap();
    node.unpublish(&volume).await.unwrap();
    until("the view to go", async || node.status().await.views.is_empty()).await;
    node.stop();
    // As if everything were old but for what was used.
    crate::world::change(&lab, "update ValidPaths set registrationTime = 1000");
    let index = "/nix/var/nix-csi/used.sqlite";
    change_in(&lab, index, "update born set at = 0");
    let said = gc(&lab, &["--explain", &used]).unwrap();
    assert!(said.contains("would go in ") && said.contains("stays for "), "{said}");
    gc(&lab, &[]).unwrap();
    let left = valid(&lab);
    assert!(left.contains(&used) && !left.contains(&unused));
    // Without the index all is as old as its registration.
    gc(&lab, &["--state-dir", "/nowhere"]).unwrap();
    assert!(!valid(&lab).contains(&used));
}
