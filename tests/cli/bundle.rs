//! `nix-csi debug bundle`: what is in it, what is not, and who gets it.

mod archive;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use self::archive::{DRIVER, Files, MACHINE, NODE, UNKNOWN, files, manifest, names, sorted};
use crate::lab;
use crate::lab::{Lab, until};

/// In every secret of these tests.
const MARK: &str = "pl4nted-s3cret";

fn run(lab: &Lab, admin: &str, args: &[&str]) -> Output {
    let mut command = lab.command(env!("CARGO_BIN_EXE_nix-csi"));
    command.args(["debug", "bundle", "--admin-endpoint", admin]).args(args);
    command.output().unwrap()
}

/// The bundle on standard output.
fn bundle(lab: &Lab, admin: &str) -> Files {
    let output = run(lab, admin, &["-o", "-"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    files(&output.stdout)
}

fn setting<'a>(settings: &'a Value, name: &str) -> &'a Value {
    settings.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_and_no_secret() {
    let lab = lab!();
    let file = |name: &str, text: &str| {
        fs::write(lab.path(name), text).unwrap();
        lab.path(name).to_str().unwrap().to_owned()
    };
    let conf = file("nix.conf", "connect-timeout = 7\n");
    let netrc = file("netrc", &format!("machine h login u password {MARK}-netrc\n"));
    let tokens = file("tokens", &format!("github.com={MARK}-file"));
    let key = lab.ssh_key("key");
    let body = fs::read_to_string(&key).unwrap();
    let body = body.lines().nth(2).unwrap().to_owned();
    let mut command = lab.command("env");
    command.arg(format!("NIX_CSI_ALLOWED_URIS=https://u:{MARK}-environment@h.example/"));
    command.arg(env!("CARGO_BIN_EXE_nix-csi"));
    let (netrc_option, cache) =
        (format!("netrc-file={netrc}"), format!("http://u:{MARK}-argument@127.0.0.1:1"));
    let args =
        ["--nix-conf", &conf, "--nix-option", &netrc_option, "--access-tokens-file", &tokens];
    let more = ["--ssh-key", key.to_str().unwrap(), "--cache", &cache, "--probe-timeout", "100ms"];
    let node = lab.node_by(command, &[&args[..], &more].concat()).await;
    let expression = "derivation { name = \"own\"; system = builtins.currentSystem; \
        builder = \"/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }";
    let volume = lab.volume("v", &[("nixExpr", expression)]);
    let mut request = volume.request();
    let secret = format!("machine h login u password {MARK}-volume\n");
    request.secrets.insert("netrc".to_owned(), secret);
    node.publish_request(request).await.unwrap();
    // Nix takes none there, which does not make it less of a secret.
    let secrets =
        format!("access-tokens = github.com={MARK}-conf\nimpure-env = GITHUB_TOKEN={MARK}-env\n");
    file("nix.conf", &format!("connect-timeout = 8\n{secrets}"));
    until("the refusal", async || node.log().contains("access-tokens")).await;

    let admin = node.admin.to_str().unwrap().to_owned();
    let files = bundle(&lab, &admin);
    assert_eq!(names(&files), sorted(&[&MACHINE, &DRIVER, &NODE]), "{}", files["MANIFEST"]);
    let (said, head) = manifest(&files);
    assert!(head.contains(&format!("the driver answers at {admin}")), "{head}");
    assert!(said.values().all(|what| *what == "whole"), "{}", files["MANIFEST"]);
    for (name, text) in &files {
        assert!(!text.contains(MARK), "{name}: {text}");
        assert!(!text.contains(&body), "{name} has a private key");
        if Path::new(name).extension().is_some_and(|of| of == "json") {
            serde_json::from_str::<Value>(text).unwrap();
        }
        assert!(!text.is_empty(), "{name} is empty");
    }
    let target = volume.target.to_str().unwrap();
    for (name, wanted) in [
        ("status.txt", "node lab is "),
        ("status.txt", target),
        ("uploads.txt", "http://127.0.0.1:1"),
        ("policy.txt", "there is no policy"),
        (
            "metrics.txt",
            "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"nixExpr\",warm=\"no\"} 1\n",
        ),
        ("health.txt", "nix-daemon: ready\n"),
        ("log.txt", ": published volume="),
        ("mounts.txt", target),
        ("versions.txt", "nix: Nix "),
        ("versions.txt", "role: node\n"),
        ("os-release.txt", "ID="),
        ("limits.txt", "Max open files"),
        ("disk.txt", "/nix/store\t"),
        ("processes.txt", "nix-daemon"),
        ("nix.conf.txt", "connect-timeout = 8\naccess-tokens = ***\nimpure-env = ***\n"),
        ("gc-dry-run.txt", "--dry-run --older-than 1h` says it. The driver collects by its own"),
        ("gc-dry-run.txt", " are held\n"),
    ] {
        assert!(files[name].contains(wanted), "{name} without {wanted:?}: {}", files[name]);
    }
    let settings: Value = serde_json::from_str(&files["settings.json"]).unwrap();
    let of = |name| setting(&settings, name);
    assert_eq!(
        (&of("--hold")["origin"], &of("--hold")["values"][0]),
        (&"default".into(), &"100s".into())
    );
    let uris = of("--allowed-uri");
    assert_eq!(
        (&uris["origin"], &uris["environment"]),
        (&"environment".into(), &"NIX_CSI_ALLOWED_URIS".into())
    );
    assert_eq!(uris["values"][0], "https://h.example/");
    assert_eq!(
        (&of("--cache")["origin"], &of("--cache")["values"][0]),
        (&"argument".into(), &"http://127.0.0.1:1".into())
    );
    assert_eq!(of("--ssh-key")["files"][0]["mode"], "0600");
    let status: Value = serde_json::from_str(&files["status.json"]).unwrap();
    assert_eq!(status["volumes"][0]["targetPath"], target);
}

#[tokio::test]
async fn what_is_missing_of_a_node_that_is_down_is_told() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let admin = node.admin.to_str().unwrap().to_owned();
    // As another version's, that socket has no bundle; each call is tried.
    let files = bundle(&lab, node.csi.to_str().unwrap());
    let (said, head) = manifest(&files);
    assert!(
        head.ends_with("says nothing of itself for a bundle: it is another version of nix-csi")
    );
    assert_eq!((said["status.txt"], said["policy.txt"]), (UNKNOWN, UNKNOWN));
    assert!(said["gc.txt"].contains("another version") && files.contains_key("versions.txt"));
    node.kill();
    let files = bundle(&lab, &admin);
    assert_eq!(names(&files), sorted(&[&MACHINE, &["versions.txt"]]), "{}", files["MANIFEST"]);
    let (said, head) = manifest(&files);
    let why =
        format!("can't reach nix-csi at {admin}: nobody listens: `nix-csi node` is not running");
    assert!(head.ends_with(&why), "{head}");
    for name in DRIVER.iter().chain(&NODE).filter(|name| **name != "versions.txt") {
        assert_eq!(said[name], format!("missing: {why}"), "{name}");
    }
}

#[tokio::test]
async fn a_cache_has_one_too() {
    let lab = lab!();
    let role = lab.cache_role(&[]);
    let files = bundle(&lab, "/nix/var/run/admin.sock");
    assert_eq!(
        names(&files),
        sorted(&[&MACHINE, &DRIVER]),
        "{}\n{}",
        files["MANIFEST"],
        role.log()
    );
    let (said, _) = manifest(&files);
    for name in NODE {
        assert_eq!(said[name], UNKNOWN);
    }
    assert!(said["machines.txt"].starts_with("missing: /nix/var/run/machines: "), "{said:?}");
    assert!(files["versions.txt"].contains("role: cache\n"), "{}", files["versions.txt"]);
    assert!(files["log.txt"].contains(" starting "), "{}", files["log.txt"]);
    assert!(files["processes.txt"].contains("sshd"), "{}", files["processes.txt"]);
}

#[tokio::test]
async fn it_is_its_owners_file_and_never_another() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let admin = node.admin.to_str().unwrap().to_owned();
    let path = |name: &str| lab.path(name).to_str().unwrap().to_owned();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let write = |args: &[&str]| {
        let Output { status, stdout, stderr } = run(&lab, &admin, args);
        (status.code(), text(stdout), text(stderr))
    };
    let file = path("bundle.tar.gz");
    let (code, out, err) = write(&["-o", &file]);
    assert!(code == Some(0) && err.is_empty(), "{err}");
    // The node uploads nothing.
    assert_eq!(
        out,
        format!("{file}: 22 files, 2 of them missing or not whole: its MANIFEST says why\n")
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = files(&fs::read(&file).unwrap());
    assert!(manifest(&written).0["uploads.txt"].starts_with("missing: this node uploads nothing"));
    fs::write(path("other"), "other").unwrap();
    symlink(path("other"), path("link")).unwrap();
    for taken in [&file, &path("link"), &path("other")] {
        let (code, _, err) = write(&["-o", taken]);
        let why = format!("nix-csi: {taken}: it is there already: --force replaces it\n");
        assert_eq!((code, err), (Some(1), why));
    }
    assert_eq!(write(&["--force", "-o", &path("link")]).0, Some(0));
    assert_eq!(fs::read_to_string(path("other")).unwrap(), "other");
    assert!(fs::symlink_metadata(path("link")).unwrap().is_file());
    let left = lab.names(lab.dir.path().to_str().unwrap());
    assert!(!left.iter().any(|name| name.starts_with(".link")), "{left:?}");

    if lab.run("script", &["--version"]).status.code() != Some(0) {
        return crate::lab::skipped("it_is_its_owners_file_and_never_another", "no script");
    }
    let command =
        format!("{} debug bundle -o - --admin-endpoint {admin}", env!("CARGO_BIN_EXE_nix-csi"));
    let typed = lab.run("script", &["-qec", &command, "/dev/null"]);
    let said = text(typed.stdout);
    assert_eq!(typed.status.code(), Some(1), "{said}");
    assert!(
        said.contains("an archive is nothing for a terminal: redirect it, or name a file"),
        "{said}"
    );
}

#[tokio::test]
async fn only_root_is_told_what_the_driver_knows() {
    let lab = lab!();
    lab.ok("chmod", &["755", lab.dir.path().to_str().unwrap()]);
    let node = lab.node(&[]).await;
    let admin = node.admin.to_str().unwrap().to_owned();
    let copy = lab.path("nix-csi"); // the project's directory may be closed to others
    fs::copy(env!("CARGO_BIN_EXE_nix-csi"), &copy).unwrap();
    let mut nobody = lab.command("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", copy.to_str().unwrap()]);
    nobody.args(["debug", "bundle", "-o", "-", "--admin-endpoint", &admin]);
    let files = files(&nobody.output().unwrap().stdout);
    let (said, _) = manifest(&files);
    for name in DRIVER.iter().chain(&NODE).filter(|name| **name != "versions.txt") {
        assert!(said[name].contains("permission denied: the socket is for root alone"), "{said:?}");
    }
}
