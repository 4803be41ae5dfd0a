//! What a node leaves on its machine goes by `nix-csi clean`, and what is mounted never.

use std::fs;
use std::path::Path;

use crate::lab;
use crate::lab::{Lab, Node, assert_shows, closure_of, leftovers, names, target_mounts};
use crate::program::{Said, run_in};

const DRIVER: &str = "nix.csi.store";

fn clean(lab: &Lab, more: &[&str]) -> Said {
    let [run, socket, registry] = ["run", "plugins/nix.csi.store/csi.sock", "registry"]
        .map(|name| lab.path(name).to_str().unwrap().to_owned());
    let usual =
        ["clean", "--run-dir", &run, "--endpoint", &socket, "--registration-dir", &registry];
    run_in(lab, ".", &[&usual[..], more].concat())
}

/// Directories as a kubelet has them.
fn kubelet(lab: &Lab) {
    let plugins = lab.path("plugins").join(DRIVER);
    fs::create_dir_all(&plugins).unwrap();
    fs::create_dir_all(lab.path("plugins/other.driver")).unwrap();
    fs::create_dir_all(lab.path("registry")).unwrap();
    for file in [
        plugins.join("csi.sock"),
        lab.path("registry").join(format!("{DRIVER}@reg.sock")),
        lab.path("registry/other.driver-reg.sock"),
    ] {
        fs::write(file, "").unwrap();
    }
}

async fn stopped(mut node: Node) {
    let code = tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_stays_and_all_that_it_needs() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let [ro, rw] = ["ro", "rw"].map(|name| lab.volume(name, &[("storePath", &root)]));
    let rw = rw.writable();
    node.publish(&ro).await.unwrap();
    node.publish(&rw).await.unwrap();

    let said = clean(&lab, &[]);
    assert!(said.failure().contains("another nix-csi runs with --run-dir LAB/run"), "{said:?}");
    stopped(node).await;
    let before = (leftovers(&lab), lab.mounts_below(Path::new("/nix")));
    for more in [&[][..], &["--store"]] {
        let said = clean(&lab, more);
        let expected = "volumes are still mounted: LAB/targets/ro, LAB/targets/rw: delete their pods while \
                        a driver runs, or unmount them";
        assert_eq!(said.failure(), expected);
        assert_eq!((leftovers(&lab), lab.mounts_below(Path::new("/nix"))), before);
    }
    assert_shows(&lab, &ro, &closure_of(&lab, &root));

    let node = lab.node(&[]).await;
    node.unpublish(&ro).await.unwrap();
    node.unpublish(&rw).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_node_is_left_but_the_store_and_that_if_it_is_to_go() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    node.unpublish(&volume).await.unwrap();
    stopped(node).await;
    kubelet(&lab);
    // A view without volumes is kept for the next one, over restarts.
    assert!(!lab.mounts_below(Path::new("/nix/var/nix-csi/views")).is_empty());

    let said = clean(&lab, &[]);
    assert!(said.success().contains("LAB/run removed"), "{said:?}");
    assert_eq!(lab.mounts_below(Path::new("/nix/var")), [""; 0]);
    assert_eq!(target_mounts(&lab), [""; 0]);
    assert!(!lab.names("/nix/var").contains(&"nix-csi".to_owned()));
    assert!(!lab.names("/nix/var/nix/gcroots").contains(&"nix-csi".to_owned()));
    assert!(fs::symlink_metadata(lab.path("run")).is_err());
    assert_eq!(names(&lab.path("plugins")), ["other.driver"]);
    assert_eq!(names(&lab.path("registry")), ["other.driver-reg.sock"]);
    assert!(lab.names("/nix/store").contains(&root.trim_start_matches("/nix/store/").to_owned()));

    // As a machine on which there never was a node.
    assert_eq!(clean(&lab, &[]).code, Some(0));
    let node = lab.node(&[]).await;
    node.publish(&volume).await.unwrap();
    assert_shows(&lab, &volume, &closure_of(&lab, &root));
    node.unpublish(&volume).await.unwrap();
    stopped(node).await;

    let lent =
        clean(&lab, &["--store", "--nix-daemon-socket", "/nix/var/nix/daemon-socket/socket"]);
    assert_eq!(lent.code, Some(64), "{lent:?}");
    assert!(lab.names("/nix/store").len() > 1);
    let said = clean(&lab, &["--store"]);
    assert!(said.success().contains("/nix/store removed"), "{said:?}");
    assert_eq!(lab.names("/nix"), [""; 0]);
    assert_eq!(clean(&lab, &["--store"]).code, Some(0), "and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_can_not_be_read_is_no_leave_to_remove() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    stopped(node).await;
    let record = lab.path("run/volumes").join(format!("{}.json", volume.id));
    let text = fs::read(&record).unwrap();
    fs::write(&record, "half").unwrap();
    let said = clean(&lab, &["--store"]);
    assert!(said.failure().contains(record.file_name().unwrap().to_str().unwrap()), "{said:?}");
    assert_shows(&lab, &volume, &closure_of(&lab, &root));
    // Nor is one that is gone: the view is shown by somebody.
    fs::remove_file(&record).unwrap();
    let said = clean(&lab, &["--store"]);
    assert!(said.failure().contains("is still shown by a mount"), "{said:?}");
    assert_shows(&lab, &volume, &closure_of(&lab, &root));
    fs::write(&record, text).unwrap();
    let node = lab.node(&[]).await;
    node.unpublish(&volume).await.unwrap();
}

/// What is mounted below a directory that goes is somebody else's.
#[test]
fn a_mount_of_somebody_else_is_not_emptied() {
    let lab = lab!();
    lab.closure(&[]);
    let other = "/nix/var/nix-csi/other";
    lab.ok("mkdir", &["-p", other]);
    lab.ok("mount", &["-t", "tmpfs", "other", other]);
    let file = format!("{other}/file");
    lab.ok("touch", &[&file]);
    for more in [&[][..], &["--store"]] {
        let said = clean(&lab, more);
        assert!(said.failure().contains("/nix/var/nix-csi/other is still mounted"), "{said:?}");
    }
    lab.ok("test", &["-e", &file]);
    lab.ok("umount", &[other]);
    // Nor is what is beside the store.
    lab.ok("mkdir", &["/nix/backup"]);
    lab.ok("mount", &["-t", "tmpfs", "other", "/nix/backup"]);
    lab.ok("touch", &["/nix/backup/file"]);
    let said = clean(&lab, &["--store"]);
    assert!(said.failure().contains("/nix/backup is still mounted"), "{said:?}");
    lab.ok("test", &["-e", "/nix/backup/file"]);
    lab.ok("umount", &["/nix/backup"]);
    assert_eq!(clean(&lab, &[]).code, Some(0));
}

/// As in a container, whose root file system is read-only and whose volumes can't be removed.
#[test]
fn what_is_mounted_for_it_is_emptied() {
    let lab = lab!();
    lab.closure(&[]);
    let outer = lab.path("outer");
    let run = outer.join("run");
    let [outer, run] = [&outer, &run].map(|path| path.to_str().unwrap());
    lab.ok("mkdir", &[outer]);
    lab.ok("mount", &["-t", "tmpfs", "outer", outer]);
    lab.ok("mkdir", &[run]);
    lab.ok("mount", &["-t", "tmpfs", "run", run]);
    lab.ok("mkdir", &[&format!("{run}/volumes")]);
    lab.ok("mount", &["-o", "remount,ro", outer]);
    let said = run_in(&lab, ".", &["clean", "--run-dir", run]);
    assert!(said.success().contains("LAB/outer/run emptied"), "{said:?}");
    assert_eq!(lab.names(run), [""; 0]);
    lab.ok("umount", &[run]);
    lab.ok("umount", &[outer]);
}

#[test]
fn a_store_that_others_use_stays() {
    let lab = lab!();
    let root = lab.closure(&[]);
    for (file, word) in [
        ("daemon-socket/socket", "a nix-daemon"),
        ("profiles/system", "NixOS"),
        ("profiles/default", "users"),
    ] {
        let file = format!("/nix/var/nix/{file}");
        lab.ok("mkdir", &["-p", Path::new(&file).parent().unwrap().to_str().unwrap()]);
        lab.ok("ln", &["-s", "nowhere", &file]);
        let said = clean(&lab, &["--store"]);
        assert!(said.failure().contains(word) && said.failure().contains(&file), "{said:?}");
        lab.ok("test", &["-e", &root]);
        lab.ok("rm", &[&file]);
    }
    lab.ok("touch", &["/nix/a file"]);
    assert_eq!(clean(&lab, &["--store"]).code, Some(0));
    assert_eq!(lab.names("/nix"), [""; 0]);
}
