//! Private keys are in the files that are for them, and nowhere else: not in a store, not in what a process
//! was started with, not in what anybody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::flow::{Hosts, built_at, derivation, hosts, queued, uploaded};
use crate::lab::{Lab, Node, node_binary, until};
use crate::nodes::{builder, machine_line};
use crate::or_skip;

/// Where a key may be, below the directory of its machine.
type Places = BTreeSet<PathBuf>;

/// What of a private key is in no public one: lines of the OpenSSH format, or what Nix writes.
fn parts(key: &Path) -> Vec<String> {
    let text = fs::read_to_string(key).unwrap();
    if let Some((_, secret)) = text.trim().split_once(':') {
        return vec![secret[..40].to_owned()];
    }
    // Head, cipher, public half; then what is private, and the comment.
    let body: Vec<_> = text.lines().filter(|line| !line.starts_with('-')).collect();
    body[2..4].iter().map(|line| (*line).to_owned()).collect()
}

/// Files below `dir` that have one of those parts.
fn found(dir: &Path, patterns: &Path) -> Places {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--binary-files=text", "--files-with-matches", "--devices=skip"]);
    let output = grep.args(["-F", "-f"]).arg(patterns).arg(dir).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    list.lines().map(|file| Path::new(file).strip_prefix(dir).unwrap().to_owned()).collect()
}

/// Arguments and environments of what runs in the machines at this moment, by program.
fn look(labs: &[&Lab], patterns: &[String], seen: &mut BTreeMap<String, usize>) {
    for lab in labs {
        for line in lab.processes() {
            let (pid, program) = (line.split(' ').next().unwrap(), line.split(' ').nth(2));
            let read = |file: &str| fs::read(lab.proc().join(pid).join(file)).unwrap_or_default();
            for file in ["cmdline", "environ"] {
                let text = String::from_utf8_lossy(&read(file)).into_owned();
                assert!(!patterns.iter().any(|part| text.contains(part)), "{file} of {line}");
            }
            let program = Path::new(program.unwrap_or_default());
            let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            *seen.entry(program).or_default() += 1;
        }
    }
}

/// All that the node tells who asks.
fn told(lab: &Lab, node: &Node) -> String {
    let asks: [&[&str]; 5] = [
        &["status", "-o", "json"],
        &["builds", "-o", "json"],
        &["uploads", "-o", "json"],
        &["status"],
        &["uploads"],
    ];
    let mut text = node.metrics() + &node.get("/readyz") + &node.get("/log-filter");
    for args in asks {
        let mut command = lab.command(node_binary());
        let output = command.args(args).arg("--admin-endpoint").arg(&node.admin).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        text += &String::from_utf8_lossy(&output.stdout);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn private_keys_are_in_their_own_files_alone() {
    let Hosts { network: _network, cache, a, b } = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let trace = ["--log", "trace"];
    let role = cache.cache_role(&[&trace[..], &["--trusted-public-key", &public]].concat());
    let keys = (&*secret, &*public);
    let extra = [&trace[..], &["--build-on", "cache", "--upload-derivations"]].concat();
    let node_a = builder((&a, "a"), &cache, &role, keys, &extra).await;
    let node_b = builder((&b, "b"), &cache, &role, keys, &trace).await;
    let line = machine_line(3, &b, 2, "-");
    cache.inside(|| fs::write("/nix/var/run/machines", line)).unwrap();

    // Where each may be: what is mounted, what was made here, and the copies for Nix and ssh.
    let set = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Places>();
    let copies = ["run/mounted/private-key", "run/mounted/signing-key", "builders.secret"];
    let host = "nix/var/nix-csi/ssh/host_ed25519";
    let expected = [
        (&cache, set(&[host, "nix/var/nix-csi/ssh/builder_ed25519"])),
        (&a, set(&[&copies[..], &[host, "a", "nodes.secret"]].concat())),
        (&b, set(&[&copies[..], &[host, "b"]].concat())),
    ];
    let files = expected.iter().flat_map(|(lab, files)| files.iter().map(|f| lab.path("").join(f)));
    let patterns: BTreeSet<_> = files.flat_map(|file| parts(&file)).collect();
    let patterns: Vec<_> = patterns.into_iter().collect();
    assert_eq!(patterns.len(), 2 * 6 + 1, "six keys of ssh and one that signs");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("patterns");
    fs::write(&list, patterns.join("\n")).unwrap();

    let (mut seen, is_over) = (BTreeMap::new(), AtomicBool::new(false));
    let work = async {
        let slow = |name: &str| derivation(name, "").replace("touch", "sleep 1; touch");
        let volume = a.volume("there", &[("nixExpr", &slow("there"))]);
        node_a.publish(&volume).await.unwrap();
        until("its upload", async || queued(&node_a) == 0.0 && uploaded(&node_a) >= 1.0).await;
        let root = node_a.status().await.volumes[0].root.clone();
        node_b.publish(&b.volume("there", &[("storePath", &root)])).await.unwrap();
        // Built and pushed by itself.
        let volume = b.volume("here", &[("nixExpr", &slow("here"))]);
        node_b.publish(&volume).await.unwrap();
        until("its upload", async || queued(&node_b) == 0.0 && uploaded(&node_b) >= 1.0).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let looks = async {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        while !is_over.load(Ordering::Relaxed) {
            tokio::task::block_in_place(|| look(&[&cache, &a, &b], &patterns, &mut seen));
            again.tick().await;
        }
    };
    tokio::join!(work, looks);
    assert_eq!((built_at(&cache), built_at(&a), built_at(&b)), (0, 0, 2));
    for program in ["nix-daemon", "nix", "ssh", "nix-csi"] {
        assert!(seen.contains_key(program), "{program} was not looked at: {seen:?}");
    }

    for (lab, node) in [(&a, &node_a), (&b, &node_b)] {
        let text = told(lab, node);
        assert!(!patterns.iter().any(|part| text.contains(part)), "a node tells a key");
    }
    assert!(node_a.log().contains("TRACE") && role.get("/log-filter").ends_with("trace\n"));
    for (lab, files) in &expected {
        assert_eq!(found(lab.dir.path(), &list), *files);
        for file in files.iter().filter(|file| file.starts_with("run") || file.starts_with("nix")) {
            let found = fs::metadata(lab.path("").join(file)).unwrap();
            assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, 0), "{}", file.display());
        }
    }
}
