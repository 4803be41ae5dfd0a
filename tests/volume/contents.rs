//! What a volume holds, and that a read-only one can't be written.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::lab;
use crate::lab::{Lab, Volume};
use crate::world::{closure_of, in_volume, names};

type Row = (String, String, i64, Option<String>, Option<String>, i64);

/// What a database says of the closure's paths.
fn rows(database: &Path, paths: &[String]) -> Vec<Row> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "select path, hash, registrationTime, sigs, ca, narSize from ValidPaths \
               where path = ?1";
    let mut query = db.prepare(sql).unwrap();
    let row = |path: &String| {
        query.query_row([path], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
        })
    };
    paths.iter().map(row).collect::<Result<_, _>>().unwrap()
}

fn signed_closure(lab: &Lab) -> String {
    let root = lab.closure(&[]);
    let (key, public) = (lab.path("key"), lab.path("key.pub"));
    let secret = lab.ok(
        "nix-store",
        &["--generate-binary-cache-key", "lab", key.to_str().unwrap(), public.to_str().unwrap()],
    );
    assert_eq!(secret, "");
    let key = key.to_str().unwrap();
    let sign = ["--extra-experimental-features", "nix-command", "store", "sign", "-r", "-k", key];
    lab.ok("nix", &[&sign[..], &[root.as_str()]].concat());
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_holds_its_closure_its_result_and_its_database() {
    let lab = lab!();
    let root = signed_closure(&lab);
    lab.closure(&["--argstr", "seed", "other"]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();

    let paths: Vec<_> = closure_of(&lab, &root).into_iter().collect();
    let at = volume.target.as_path();
    lab.inside(|| {
        assert_eq!(names(at), ["store", "var"]);
        let store: Vec<_> =
            names(&at.join("store")).iter().map(|n| format!("/nix/store/{n}")).collect();
        assert_eq!(store, paths);
        for link in ["var/result", "var/nix/gcroots/result"] {
            assert_eq!(fs::read_link(at.join(link)).unwrap().to_str(), Some(root.as_str()));
        }
        assert_eq!(names(&at.join("var/nix/db")), ["db.sqlite", "schema"]);
        let database = at.join("var/nix/db/db.sqlite");
        let own = rows(&database, &paths);
        assert_eq!(own, rows(Path::new("/nix/var/nix/db/db.sqlite"), &paths));
        assert!(own.iter().all(|row| row.3.as_ref().is_some_and(|sigs| sigs.starts_with("lab:"))));
        let db = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let one = |sql: &str| db.query_row(sql, [], |r| r.get::<_, String>(0)).unwrap();
        assert_eq!(one("pragma journal_mode"), "delete");
        assert_eq!(one("pragma integrity_check"), "ok");
        let count = one("select cast(count(*) as text) from ValidPaths");
        assert_eq!(count, paths.len().to_string());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_where_nothing_else_of_the_store_is() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let other = lab.closure(&["--argstr", "seed", "other"]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    assert_eq!(in_volume(&lab, &volume, "/nix/var/result/bin/hello"), "hello from small");
    let ask = format!("test -e {root} && ! test -e {other} && ls /nix/store | wc -l");
    assert_eq!(in_volume(&lab, &volume, &ask), closure_of(&lab, &root).len().to_string());
}

/// The frame of memory with the first page of a program, as a process that runs it from there has it mapped:
/// Documentation/admin-guide/mm/pagemap.rst.
fn frame(lab: &Lab, program: &str) -> u64 {
    let script = r#"
        "$0" sleep 1000 &
        until [ "$(readlink /proc/$!/exe)" = "$0" ]; do :; done
        IFS=- read -r start rest < /proc/$!/maps
        entry=
        until case $entry in [89a-f]*) true ;; *) false ;; esac; do
            entry=$(od -An -tx8 -j $((0x$start / 4096 * 8)) -N 8 /proc/$!/pagemap)
            entry=${entry# }
        done
        kill $!
        echo "$entry""#;
    let entry = lab.ok("sh", &["-euc", script, program]);
    let frame = u64::from_str_radix(&entry, 16).unwrap() & ((1 << 55) - 1);
    assert!(frame > 0, "{entry}");
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_all_kinds_run_from_the_same_pages() {
    let lab = lab!();
    let dir = lab.path("programs");
    fs::create_dir(&dir).unwrap();
    fs::copy("/bin/busybox", dir.join("busybox")).unwrap();
    let root = lab.ok("nix-store", &["--add", dir.to_str().unwrap()]);
    let own = frame(&lab, &format!("{root}/busybox"));
    assert_ne!(own, frame(&lab, dir.join("busybox").to_str().unwrap()), "a copy's are others");
    for presentation in ["redirect", "hardlink"] {
        let node = lab.node(&["--presentation", presentation]).await;
        let one = lab.volume(&format!("one-{presentation}"), &[("storePath", &root)]);
        let other = lab.volume(&format!("other-{presentation}"), &[("storePath", &root)]);
        for volume in [one, other.writable()] {
            node.publish(&volume).await.unwrap();
            let name = root.strip_prefix("/nix").unwrap();
            let program = format!("{}{name}/busybox", volume.target.display());
            assert_eq!(frame(&lab, &program), own, "{presentation}: {program}");
            node.unpublish(&volume).await.unwrap();
        }
        node.kill();
    }
}

/// Defect 1: the files are the store's own, so that pods share their page cache.
#[tokio::test(flavor = "multi_thread")]
async fn files_have_the_stores_inodes() {
    let lab = lab!();
    let root = lab.closure(&[]);
    for presentation in ["redirect", "hardlink"] {
        let node = lab.node(&["--presentation", presentation]).await;
        let volume = lab.volume(presentation, &[("storePath", &root)]);
        node.publish(&volume).await.unwrap();
        lab.inside(|| {
            let name = root.strip_prefix("/nix").unwrap();
            let file = format!("{name}/etc/marker");
            let (own, shown) =
                (format!("/nix{file}"), format!("{}{file}", volume.target.display()));
            assert_eq!(fs::metadata(own).unwrap().ino(), fs::metadata(shown).unwrap().ino());
        });
        node.unpublish(&volume).await.unwrap();
        node.kill();
    }
}

/// The kernel's answers to everything that would change a file.
fn attempts(volume: &Volume, root: &str) -> Vec<(&'static str, std::io::Result<()>)> {
    let at = &volume.target;
    let dir = at.join(root.strip_prefix("/nix/").unwrap());
    let file = dir.join("etc/marker");
    vec![
        ("create in the store", File::create(at.join("store/new")).map(drop)),
        ("create in a path", File::create(dir.join("new")).map(drop)),
        ("create beside the store", File::create(at.join("new")).map(drop)),
        ("open to write", OpenOptions::new().write(true).open(&file).map(drop)),
        (
            "open the database",
            OpenOptions::new().write(true).open(at.join("var/nix/db/db.sqlite")).map(drop),
        ),
        ("chmod", fs::set_permissions(&file, Permissions::from_mode(0o777))),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ("rename", fs::rename(&file, dir.join("etc/other"))),
        ("unlink", fs::remove_file(&file)),
        ("unlink a path", fs::remove_dir_all(&dir)),
        ("link", fs::hard_link(&file, dir.join("etc/other"))),
        ("symlink", symlink("x", dir.join("etc/link"))),
        ("mkdir", fs::create_dir(at.join("var/new"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_to_a_read_only_volume() {
    let lab = lab!();
    let root = lab.closure(&[]);
    for presentation in ["redirect", "hardlink"] {
        let node = lab.node(&["--presentation", presentation]).await;
        let volume = lab.volume(presentation, &[("storePath", &root)]);
        node.publish(&volume).await.unwrap();
        lab.inside(|| {
            for (what, result) in attempts(&volume, &root) {
                let error = result.expect_err(what);
                assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{what}");
            }
        });
        let line = lab.mount_lines_below(&lab.path("targets")).remove(0);
        let options: Vec<_> = line.split(' ').nth(5).unwrap().split(',').collect();
        for option in ["ro", "nosuid", "nodev"] {
            assert!(options.contains(&option), "{line}");
        }
        node.unpublish(&volume).await.unwrap();
        node.kill();
    }
}
