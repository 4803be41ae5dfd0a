//! Roots of ours that nobody has, and roots of others.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::lab;
use crate::lab::{Gate, Lab, until};
use crate::store::{assert_shows, closure_of};
use crate::world::{EAGER, assert_sound, gc, valid};

const OURS: &str = "nix/var/nix/gcroots/nix-csi";
/// Of a node with another state directory, which is not there.
const OTHERS: &str = "nix/var/nix/gcroots/nix-csi-0123456789ab/views";

/// A program that uploads nothing as long as it runs.
fn uploader(lab: &Lab) -> String {
    let program = lab.path("upload");
    fs::write(&program, "#!/bin/sh\nexec tail -f /dev/null\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

fn hash(path: &str) -> &str {
    &path["/nix/store/".len()..][..32]
}

fn explain(lab: &Lab, path: &str) -> String {
    gc(lab, &["--explain", path]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_nothing_go_and_all_others_stay() {
    let lab = lab!();
    let made = ["view", "build", "upload", "mine", "others"]
        .map(|seed| lab.closure(&["--argstr", "seed", seed, "--arg", "paths", "2"]));
    let [view, build, upload, mine, others] = &made;
    let node = lab.node(&[EAGER, &["--upload-command", &uploader(&lab)]].concat()).await;
    let mounted = Gate::new(&lab, "mounted");
    mounted.open();
    let volume = lab.volume("mounted", &[("nixExpr", &mounted.expression())]);
    node.publish(&volume).await.unwrap();
    let shown = closure_of(&lab, &node.status().await.volumes[0].root);
    let roots = |kind: &str| lab.names(&format!("/{OURS}/{kind}"));
    until("the upload to be queued", async || roots("uploads").len() == 1).await;
    let gate = Gate::new(&lab, "gated");
    let building = lab.volume("building", &[("nixExpr", &gate.expression())]);

    let leaks = async {
        gate.started().await;
        let held = ["views", "builds", "uploads"].map(roots);
        assert!(held.iter().all(|names| !names.is_empty()), "{held:?}");
        fs::create_dir_all(lab.path(OTHERS)).unwrap();
        let leaked = [
            (view, format!("{OURS}/views/{}.7", hash(view))),
            (build, format!("{OURS}/builds/7000")),
            (upload, format!("{OURS}/uploads/{}", hash(upload))),
        ];
        let foreign = [
            (mine, "nix/var/nix/gcroots/mine".to_owned()),
            (others, format!("{OTHERS}/{}.1", hash(others))),
        ];
        for (path, link) in leaked.iter().chain(&foreign) {
            symlink(path, lab.path(link)).unwrap();
        }
        for entry in fs::read_dir(lab.dir.path()).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("root-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        until("the leaked paths to go", async || {
            let valid = valid(&lab);
            leaked.iter().all(|(path, _)| !valid.contains(*path))
        })
        .await;
        let log = node.log();
        for (_, link) in &leaked {
            assert!(!lab.path(link).is_symlink());
            let told = |line: &str| {
                line.contains("WARN")
                    && line.contains("a GC root of nothing is removed")
                    && line.contains(link)
            };
            assert_eq!(log.lines().filter(|line| told(line)).count(), 1, "{link}: {log}");
        }
        until("them to be counted", async || {
            node.metrics().contains("nixcsi_gc_leaked_roots_total 3\n")
        })
        .await;
        assert_eq!(["views", "builds", "uploads"].map(roots), held);
        for (path, link) in &foreign {
            assert!(valid(&lab).contains(*path));
            let said = explain(&lab, path);
            assert!(said.contains(&format!("/{link}")), "{said}");
        }
        assert_shows(&lab, &volume, &shown);
        gate.open();
    };
    let (published, ()) = tokio::join!(node.publish(&building), leaks);
    published.unwrap();
    assert_eq!(gate.runs(), 1);
    assert!(node.metrics().contains("nixcsi_gc_leaked_roots_total 3\n"), "{}", node.log());
    assert_sound(&lab);
}
