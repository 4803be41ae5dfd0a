//! Both presentations, entry by entry.

use crate::lab;
use crate::world::assert_shows;

#[tokio::test(flavor = "multi_thread")]
async fn both_presentations_show_what_the_store_holds() {
    let lab = lab!();
    let size = ["--arg", "paths", "60", "--arg", "files", "5000", "--arg", "bytes", "200000000"];
    let medium = lab.closure(&[&size[..], &["--argstr", "seed", "medium"]].concat());
    let odd = lab.odd();
    for presentation in ["redirect", "hardlink"] {
        let state = format!("/nix/var/nix-csi-{presentation}");
        let node = lab.node(&["--presentation", presentation, "--state-dir", &state]).await;
        for (name, root) in [("medium", &medium), ("odd", &odd)] {
            for writable in [false, true] {
                let mut volume =
                    lab.volume(&format!("{name}-{presentation}"), &[("storePath", root)]);
                volume.readonly = !writable;
                node.publish(&volume).await.unwrap();
                let status = node.status().await;
                assert_eq!(status.volumes[0].presentation, presentation);
                assert_shows(&lab, &volume, root);
                node.unpublish(&volume).await.unwrap();
            }
        }
        node.kill();
    }
}
