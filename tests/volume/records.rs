//! Records that a start can't read, or that tell of another boot.

use std::fs;

use nix_csi::grpc::client::Code;
use serde_json::{Value, json};

use crate::lab;
use crate::lab::{Lab, Volume};
use crate::world::{
    NO_IDLE, assert_nothing_left, assert_shows, code, names, record, target_mounts,
};

fn edit(lab: &Lab, volume: &Volume, change: impl FnOnce(&mut Value)) {
    let path = record(lab, volume);
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
}

/// Defect 10: what can't be read is kept and told, and never a reason to unmount.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_kept_and_its_mount_untouched() {
    let lab = lab!();
    let root = lab.unrooted(&[]);
    let node = lab.node(NO_IDLE).await;
    let all = ["truncated", "version", "other"].map(|n| lab.volume(n, &[("storePath", &root)]));
    let [truncated, version, other] = &all;
    for volume in &all {
        node.publish(volume).await.unwrap();
    }
    let mounts = lab.mount_lines_below(&lab.path("targets"));
    node.kill();
    let text = fs::read(record(&lab, truncated)).unwrap();
    fs::write(record(&lab, truncated), &text[..text.len() / 2]).unwrap();
    edit(&lab, version, |record| record["version"] = json!(99));
    edit(&lab, other, |record| record["id"] = json!("csi-somebody"));
    fs::write(lab.path("run/volumes/no id.json"), "{}").unwrap();

    let node = lab.node(NO_IDLE).await;
    let status = node.status().await;
    let mut told: Vec<_> = status.unreadable.iter().map(|u| u.path.clone()).collect();
    told.sort();
    let mut expected: Vec<_> =
        all.iter().map(|v| record(&lab, v).to_str().unwrap().to_owned()).collect();
    expected.push(lab.path("run/volumes/no id.json").to_str().unwrap().to_owned());
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(node.log().matches("unreadable record, kept").count(), 4);
    assert!(node.metrics().contains("nixcsi_unreadable_records_total 4\n"));

    // Nobody unmounts them, collects what they show, or publishes over them.
    lab.ok("nix-store", &["--gc"]);
    assert_eq!(lab.mount_lines_below(&lab.path("targets")), mounts);
    for volume in &all {
        assert_shows(&lab, volume, &root);
        assert_eq!(code(node.publish(volume).await), Code::Unavailable);
    }

    // The caller's word is enough; the record stays for a person to read.
    for volume in &all {
        node.unpublish(volume).await.unwrap();
        let aside = lab.path(&format!("run/volumes/{}.unreadable", volume.id));
        assert!(aside.try_exists().unwrap());
    }
    assert_eq!(target_mounts(&lab), [""; 0]);
    assert_eq!(node.status().await.unreadable.len(), 1);
    node.publish(truncated).await.unwrap();
    node.unpublish(truncated).await.unwrap();
    assert_eq!(names(&lab.path("targets")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_a_starting_node_does_not_pass_an_unreadable_record() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    node.kill();
    for round in 0..3 {
        fs::write(record(&lab, &volume), "{").unwrap();
        let node = lab.starting_node(&[]);
        lab::eventually("the socket", || {
            std::os::unix::net::UnixStream::connect(&node.csi).is_ok()
        });
        assert_eq!(code(node.publish(&volume).await), Code::Unavailable, "{round}");
        assert_eq!(target_mounts(&lab).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_boot_is_cleared() {
    let lab = lab!();
    let root = lab.closure(&[]);
    for writable in [false, true] {
        let node = lab.node(NO_IDLE).await;
        let mut volume = lab.volume("one", &[("storePath", &root)]);
        volume.readonly = !writable;
        node.publish(&volume).await.unwrap();
        node.kill();
        // A reboot takes the mounts and leaves the files.
        lab.ok("umount", &[volume.target.to_str().unwrap()]);
        let old = "00000000-0000-0000-0000-000000000000";
        edit(&lab, &volume, |record| record["boot_id"] = json!(old));
        let own = lab.path("nix/var/nix-csi/volumes").join(&volume.id).join("volume.json");
        if writable {
            let mut value: Value = serde_json::from_slice(&fs::read(&own).unwrap()).unwrap();
            value["boot_id"] = json!(old);
            fs::write(&own, value.to_string()).unwrap();
        }
        let node = lab.node(NO_IDLE).await;
        assert_eq!(node.status().await.volumes, []);
        assert_nothing_left(&lab);
        node.publish(&volume).await.unwrap();
        assert_shows(&lab, &volume, &root);
        node.unpublish(&volume).await.unwrap();
        assert_nothing_left(&lab);
        node.kill();
    }
}
