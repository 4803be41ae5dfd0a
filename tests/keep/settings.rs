//! `--keep` and `--keep-file`.

use std::fs;

use crate::lab;
use crate::lab::{NO_IDLE, eventually, until};
use crate::program::run_in;
use crate::world::{Noted, collect, evaluations, filled, is_there, node, ready};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_publish_of_a_kept_path_needs_no_nix() {
    let lab = lab!();
    let (mut cache, root) = filled(&lab).await;
    let noted = Noted::new(&lab);
    let [nix, program] = noted.setting();
    let keep = ["--keep", &root, &nix, &program, NO_IDLE[0], NO_IDLE[1]];
    let kept = node(&lab, &cache, &keep).await;
    let entry = ready(&kept, 1).await.remove(0);
    assert_eq!((&*entry.root, entry.setting, entry.until), (&*root, true, None));
    assert_eq!(kept.status().await.views[0].view_id, entry.view_id);
    assert!(kept.metrics().contains("nixcsi_kept{state=\"ready\"} 1\n"));
    collect(&lab);

    let before = noted.runs();
    let volume = lab.volume("first", &[("storePath", &root)]);
    kept.publish(&volume).await.unwrap();
    assert_eq!(noted.runs(), before);
    let status = kept.status().await;
    assert_eq!((&*status.volumes[0].origin, status.views.len()), ("present", 1));
    kept.unpublish(&volume).await.unwrap();
    collect(&lab);
    assert!(is_there(&lab, &root));
    kept.kill();

    // Whoever has it is gone; the next driver has the view, and a publish of it.
    cache.kill().await;
    collect(&lab);
    let again = node(&lab, &cache, &keep).await;
    assert_eq!(ready(&again, 1).await[0].view_id, entry.view_id);
    again.publish(&volume).await.unwrap();
    again.unpublish(&volume).await.unwrap();
    collect(&lab);
    assert!(is_there(&lab, &root));
    again.kill();

    let _gone = node(&lab, &cache, NO_IDLE).await;
    eventually("the view to go", || lab.names("/nix/var/nix/gcroots/nix-csi/views").is_empty());
    collect(&lab);
    assert!(!is_there(&lab, &root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_followed_and_so_is_what_it_names() {
    let lab = lab!();
    let mut web = lab.cache().await;
    lab.push_flake(&web, "one");
    let file = lab.path("keep");
    let mutable = format!("{}/flake.tar#x", web.url());
    fs::write(&file, format!("# one a line\n{mutable}\n\n/nix/store/short\n")).unwrap();
    let list = file.to_str().unwrap();
    let fast = ["--keep-refresh", "1s", "--refresh-after", "1ms"];
    let kept = node(&lab, &web, &[&["--keep-file", list], &fast[..], NO_IDLE].concat()).await;
    let one = ready(&kept, 1).await.remove(0);
    let refused = kept.status().await.refused_sources;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("/keep: line 4: storePath: \"short\" is not a store path"));
    assert!(kept.metrics().contains("nixcsi_config_refused{kind=\"keep-file\"} 1\n"));

    lab.push_flake(&web, "two");
    let mut two = String::new();
    until("the push to be warm", async || {
        let now = ready(&kept, 1).await.remove(0);
        two = now.root;
        two != one.root
    })
    .await;
    until("the old one to go", async || kept.status().await.views.len() == 1).await;
    collect(&lab);
    assert!(is_there(&lab, &two) && !is_there(&lab, &one.root));
    kept.kill();

    // Locked: evaluated beforehand, and in the next driver not at all.
    let metadata = ["--extra-experimental-features", "nix-command flakes", "flake", "metadata"];
    let url = format!("{}/flake.tar", web.url());
    let said = lab.ok("nix", &[&metadata[..], &["--json", &url]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let hash = said["locked"]["narHash"].as_str().unwrap();
    let hash = hash.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let locked = format!("{url}?narHash={hash}#x");
    fs::write(&file, &locked).unwrap();
    let volume = lab.volume("locked", &[("flakeRef", &locked)]);
    for driver in ["the first", "the next"] {
        let kept = node(&lab, &web, &["--keep-file", list]).await;
        assert_eq!(ready(&kept, 1).await[0].root, two);
        let before = evaluations(&kept);
        assert_eq!(before, u64::from(driver == "the first"), "{driver}");
        kept.publish(&volume).await.unwrap();
        assert_eq!(evaluations(&kept), before, "{driver}");
        kept.unpublish(&volume).await.unwrap();
        kept.kill();
        if driver == "the first" {
            web.kill().await;
        }
    }
}

#[test]
fn a_bad_source_among_the_settings_is_a_refusal_to_start() {
    let lab = lab!();
    let said = run_in(&lab, ".", &["node", "--keep", "hello world"]);
    assert_eq!(said.code, Some(64), "{said:?}");
    assert!(
        said.err.contains("line 1: a source has no space in it: write a store path"),
        "{said:?}"
    );
}
