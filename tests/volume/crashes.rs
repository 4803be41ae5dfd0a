//! A node that dies at each named point of its work: its successor finds a mounted volume or
//! nothing, and everything works from there.

use nix_csi::model::{Shape, VolumeSize};
use nix_csi::mount::CRASH_POINTS;

use crate::lab;
use crate::lab::{Lab, Node, Volume, eventually};
use crate::world::{
    NO_IDLE, assert_nothing_left, assert_shows, leftovers, record, target_mounts, until,
};

const BOUNDED: Shape = Shape::Bounded(VolumeSize::MIN);

/// Publish, unpublish and the view's end, until the node dies of it.
async fn live_until_death(lab: &Lab, point: &str, volume: &Volume) {
    let mut node = lab.starting_node(&[NO_IDLE, &["--crash-at", point]].concat());
    eventually("the node", || node.ended() || node.csi.try_exists().unwrap());
    let mut alive = true;
    until("the node to be ready or dead", async || {
        alive = !node.ended();
        !alive || node.probe().await == Ok(true)
    })
    .await;
    if alive && node.publish(volume).await.is_ok() {
        // Whoever dies here leaves a volume as it is.
        let _ = node.unpublish(volume).await;
    }
    eventually(&format!("death at {point}"), || node.ended());
}

/// What a successor must find and be able to do.
async fn assert_repaired(lab: &Lab, node: &Node, volume: &Volume, root: &str) {
    let status = node.status().await;
    assert_eq!(status.unreadable, []);
    let expected = if volume.attributes.contains_key("hostUsers") { 3 } else { 1 };
    if target_mounts(lab).is_empty() {
        assert_eq!(status.volumes, []);
        assert!(!record(lab, volume).try_exists().unwrap());
        assert_eq!(lab.names("/nix/var/nix-csi/volumes"), [""; 0]);
    } else {
        assert_eq!(status.volumes.len(), 1);
        assert_eq!(status.volumes[0].state, "mounted");
        assert_shows(lab, volume, root);
    }
    node.publish(volume).await.unwrap();
    assert_eq!(target_mounts(lab).len(), expected);
    assert_shows(lab, volume, root);
    node.unpublish(volume).await.unwrap();
    assert_nothing_left(lab);
}

async fn survives(points: &[&str], presentation: &str) {
    let lab = lab!();
    let root = lab.closure(&["--arg", "files", "8"]);
    for point in points {
        for shape in [Shape::ReadOnly, Shape::Idmapped, Shape::Writable, BOUNDED] {
            let passes = match *point {
                "attach-image-made" | "attach-image-shown" => shape == BOUNDED,
                "attach-files-made" | "attach-record-written" => shape.is_writable(),
                "attach-top-shown" | "attach-part-shown" | "detach-part-unmounted" => {
                    shape == Shape::Idmapped
                }
                _ => true,
            };
            if !passes {
                continue;
            }
            eprintln!("{point}, {shape:?}");
            let users = (shape == Shape::Idmapped).then_some(("hostUsers", "false"));
            let size = (shape == BOUNDED).then_some(("size", "16Mi"));
            let source = ("storePath", &*root);
            let attributes: Vec<_> = [source].into_iter().chain(users).chain(size).collect();
            let mut volume = lab.volume(point, &attributes);
            volume.readonly = !shape.is_writable();
            live_until_death(&lab, point, &volume).await;
            let node = lab.node(&[NO_IDLE, &["--presentation", presentation]].concat()).await;
            assert_repaired(&lab, &node, &volume, &root).await;
        }
    }
    assert_eq!(leftovers(&lab), [""; 0]);
    // The last daemon is the dead node's; nothing else runs.
    let others = |line: &String| !line.contains("nix-daemon");
    eventually("other processes to end", || !lab.processes().iter().any(others));
}

fn mount_points(prefixes: &[&str]) -> Vec<&'static str> {
    let of = |point: &&&str| prefixes.iter().any(|prefix| point.starts_with(prefix));
    CRASH_POINTS.iter().filter(of).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_a_view_is_made_is_repaired() {
    let points = mount_points(&["view-", "record-"]);
    assert_eq!(
        points.len() + mount_points(&["attach-", "detach-", "remove-"]).len(),
        CRASH_POINTS.len()
    );
    survives(&points, "redirect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_a_volume_is_attached_is_repaired() {
    let points = mount_points(&["attach-"]);
    survives(&[&points[..], &["volume-record-written", "volume-attached"]].concat(), "redirect")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_a_volume_is_detached_is_repaired() {
    let points = mount_points(&["detach-"]);
    survives(&[&points[..], &["volume-detached"]].concat(), "redirect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_a_view_is_removed_is_repaired() {
    survives(&mount_points(&["remove-"]), "hardlink").await;
}
