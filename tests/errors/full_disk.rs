//! A disk that is full: the kubelet is told to call again, nothing stays, and once there is room the
//! same call succeeds.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Lab, Node, Volume};
use crate::refusal::refused;

/// A small file system in memory, in the machine.
fn small(lab: &Lab, dir: &str, options: &str) {
    lab.ok("mkdir", &["-p", dir]);
    lab.ok("mount", &["-t", "tmpfs", "-o", options, "small", dir]);
}

/// Takes every byte, or every inode.
fn fill(lab: &Lab, dir: &str, what: &str) {
    let bytes = "dd if=/dev/zero of=$0/fill bs=4096 2>&1 | grep -q 'No space'";
    let inodes = "mkdir $0/fill; i=0; while touch $0/fill/$i 2>/dev/null; do i=$((i + 1)); done";
    lab.ok("sh", &["-c", if what == "bytes" { bytes } else { inodes }, dir]);
}

fn free(lab: &Lab, dir: &str) {
    lab.ok("rm", &["-r", &format!("{dir}/fill")]);
}

async fn exhausted(lab: &Lab, node: &Node, volume: &Volume) -> String {
    let (code, text) = refused(lab, node, volume, volume.request()).await;
    assert_eq!(code, Code::ResourceExhausted, "{text}");
    text
}

async fn works(lab: &Lab, node: &Node, volume: &Volume) {
    node.publish(volume).await.unwrap();
    let hello = volume.target.join("var/result/bin/hello");
    assert!(lab.ok("cat", &[hello.to_str().unwrap()]).contains("hello from"));
    node.unpublish(volume).await.unwrap();
    crate::refusal::nothing_stays(lab, node, volume).await;
}

#[tokio::test]
async fn a_full_state_directory() {
    let lab = lab!();
    let state = lab.path("state").to_str().unwrap().to_owned();
    small(&lab, &state, "size=8m,nr_inodes=400,mode=755");
    let node = lab.node(&["--state-dir", &state]).await;
    for (seed, what) in [("a", "bytes"), ("b", "inodes")] {
        let path = lab.closure(&["--arg", "paths", "9", "--argstr", "seed", seed]);
        let mut volume = lab.volume("full", &[("storePath", &path)]);
        // First the view can't be made; then, with the view there, the writable layer can't.
        for (kind, writable) in [("present", "views"), ("mount", "volumes")] {
            fill(&lab, &state, what);
            let text = exhausted(&lab, &node, &volume).await;
            let full =
                format!("{kind} failed: no space left on the file system of {state}/{writable}/");
            assert!(text.starts_with(&full), "{what}: {text}");
            free(&lab, &state);
            works(&lab, &node, &volume).await;
            volume.readonly = false;
        }
    }
}

#[tokio::test]
async fn a_full_run_directory() {
    let lab = lab!();
    let records = lab.path("run/volumes").to_str().unwrap().to_owned();
    small(&lab, &records, "size=64k,mode=755");
    let node = lab.node(&[]).await;
    let path = lab.closure(&["--arg", "paths", "3"]);
    let volume = lab.volume("full", &[("storePath", &path)]);
    fill(&lab, &records, "bytes");
    let status = node.publish(&volume).await.unwrap_err();
    let expected = format!(
        "can't write the volume's record {records}/{}.json: No space left on device (os error 28)",
        volume.id
    );
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, &*expected));
    assert_eq!(lab.names(&records), ["fill"]);
    assert_eq!(lab.mounts_below(&lab.path("targets")), Vec::<String>::new());
    free(&lab, &records);
    works(&lab, &node, &volume).await;
}

#[tokio::test]
async fn a_full_store() {
    let lab = lab!();
    small(&lab, "/nix", "size=24m,mode=755");
    let node = lab.node(&[]).await;
    let text = "derivation { name = \"small\"; system = builtins.currentSystem; \
                builder = \"/bin/sh\"; PATH = \"/bin:/usr/bin\"; args = [ \"-c\" ''mkdir -p $out/bin; \
                head -c 8000000 /dev/zero > $out/zero; echo hello from small > $out/bin/hello'' ]; }";
    let volume = lab.volume("full", &[("nixExpr", text)]);
    // First the daemon can't even write its database, then there is too little for the build.
    fill(&lab, "/nix/var", "bytes");
    let text = exhausted(&lab, &node, &volume).await;
    assert!(text.contains(" s: no space left on the store's file system: "), "{text}");
    lab.ok("truncate", &["-s", "-4M", "/nix/var/fill"]);
    let text = exhausted(&lab, &node, &volume).await;
    let (before, reason) = text.split_once(" s: ").unwrap();
    assert!(before.starts_with("build failed after "), "{text}");
    let full = "no space left on the store's file system:";
    let way = "(what nothing holds is collected now; `nix-csi gc --dry-run` counts what is held)";
    let reasons = [
        format!("{full} writing to file: No space left on device {way}"),
        // 2.34
        format!("{full} note: build failure may have been caused by lack of free disk space {way}"),
    ];
    assert!(reasons.iter().any(|expected| expected == reason), "{text}");
    free(&lab, "/nix/var");
    works(&lab, &node, &volume).await;
}
