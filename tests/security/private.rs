//! What one namespace has built, and another one that knows its store path.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix_csi::grpc::client::{Code, Status};
use nix_csi::model::System;
use sha2::{Digest, Sha256};

use crate::lab::{Lab, Node};
use crate::planted;
use crate::world::{MARK, SANDBOXED, builder, kubelets, seen};

/// Expressions for what a file FILE in the store path DIR has in it.
const READINGS: &[&str] = &[
    "builtins.readFile FILE",
    "builtins.readFile \"FILE\"",
    "builtins.toJSON (builtins.readDir DIR)",
    "builtins.hashFile \"sha256\" FILE",
    "builtins.readFile (builtins.path { path = FILE; name = \"x\"; })",
    "builtins.readFile \"${builtins.path { path = DIR; name = \"x\"; }}/inner\"",
    "builtins.readFile \"${builtins.filterSource (_: _: true) DIR}/inner\"",
    "builtins.readFile \"${FILE}\"",
    "builtins.readFile \"${builtins.storePath DIR}/inner\"",
    "builtins.readFile \"${builtins.appendContext \"DIR\" { \"DIR\" = { path = true; }; }}/inner\"",
    "builtins.readFile \"${builtins.fetchTree { type = \"path\"; path = \"DIR\"; }}/inner\"",
    "builtins.readFile (builtins.fetchurl \"file://FILE\")",
    "import (builtins.toFile \"x\" \"builtins.readFile FILE\")",
];

/// Attributes of a derivation whose builder then reads `$dir/inner`.
const INPUTS: &[&str] = &[
    "dir = DIR;",
    "dir = builtins.storePath DIR;",
    "dir = builtins.appendContext \"DIR\" { \"DIR\" = { path = true; }; };",
    "dir = builtins.path { path = DIR; name = \"x\"; };",
    "dir = \"DIR\"; exportReferencesGraph = [ \"graph\" DIR ];",
    // Without being an input.
    "dir = \"DIR\";",
];

/// `open` may name every path, `web` and `other` what is theirs.
pub(crate) const POLICY: &str = "preset: strict\ndefault: {nixExpr: true, flakeRef: true}\nnamespaces: {open: {storePath: true}}\n";

pub(crate) async fn publish(
    (lab, node): (&Lab, &Node),
    namespace: &str,
    source: (&str, &str),
) -> Result<String, Status> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("p{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let volume = kubelets(lab, &name, namespace, source);
    node.publish(&volume).await?;
    let result = volume.target.join("var/result");
    let path = lab.ok("readlink", &[result.to_str().unwrap()]).trim().to_owned();
    let text = match lab.run("cat", &[result.to_str().unwrap()]) {
        read if read.status.success() => String::from_utf8(read.stdout).unwrap(),
        _ => path,
    };
    node.unpublish(&volume).await.unwrap();
    Ok(text)
}

fn at(text: &str, dir: &str) -> String {
    text.replace("FILE", "DIR/inner").replace("DIR", dir)
}

/// A node with that policy, where `web` has built a path; the path.
async fn node_with_a_private_path(lab: &Lab, policy: &str) -> (Node, String) {
    let file = lab.path("policy.yaml");
    fs::write(&file, policy).unwrap();
    // Here nothing but the jail is between an expression and what it reads.
    let options = ["--policy-file", file.to_str().unwrap(), "--eval-mode", "impure"];
    let node = lab.node(&[SANDBOXED, &options].concat()).await;
    let script = format!("$b mkdir $out; echo {MARK} > $out/inner");
    let private = builder("private", "", &script);
    let path = publish((lab, &node), "web", ("nixExpr", &private)).await.unwrap();
    assert!(path.starts_with("/nix/store/") && path.ends_with("-private"), "{path}");
    (node, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_path_is_named_by_nobody_else_until_somebody_signs_it() {
    let lab = planted!();
    let (secret, public) = lab.signing_key("ci-1");
    let key = lab.path("true-key");
    fs::rename(secret, &key).unwrap();
    let policy = POLICY.replace("default: {", &format!("default: {{publicKeys: [\"{public}\"], "));
    let (node, path) = node_with_a_private_path(&lab, &policy).await;
    let there = (&lab, &node);
    let source = ("storePath", &*path);
    let status = publish(there, "other", source).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let told = "the policy refuses this to namespace other (preset strict, storePath): volumeAttributes.storePath";
    assert!(status.message().starts_with(told), "{status}");
    assert!(status.message().contains("no signature of ci-1"), "{status}");
    assert_eq!(publish(there, "web", source).await.unwrap(), path);
    assert_eq!(publish(there, "open", source).await.unwrap(), path);
    // A signature of somebody else's is none, whatever it calls itself.
    let (forged, _) = lab.signing_key("ci-1");
    let sign = |key: &Path| {
        let words = ["--extra-experimental-features", "nix-command", "store", "sign", "-k"];
        lab.ok("nix", &[&words[..], &[key.to_str().unwrap(), &path]].concat());
    };
    sign(&forged);
    publish(there, "other", source).await.unwrap_err();
    sign(&key);
    assert_eq!(publish(there, "other", source).await.unwrap(), path);
    assert!(node.metrics().contains("nixcsi_policy_refusals_total{what=\"private\"}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_expression_reads_a_private_path() {
    let lab = planted!();
    let (node, path) = node_with_a_private_path(&lab, POLICY).await;
    let there = (&lab, &node);
    let (mut bite, mut explained) = (0, 0);
    for reading in READINGS {
        let text = format!("throw (\"=\" + ({}))", at(reading, &path));
        let told = async |namespace: &str| {
            let status = publish(there, namespace, ("nixExpr", &text)).await.unwrap_err();
            let seen = status.message().split_once('=').map(|(_, said)| said.to_owned());
            seen.ok_or_else(|| status.message().to_owned())
        };
        bite += usize::from(told("open").await.is_ok());
        let refusal = told("other").await.unwrap_err();
        explained += usize::from(refusal.contains("policy sets storePath: true"));
    }
    assert!(bite > 8, "{bite} of the readings work at all");
    assert!(explained > 8, "{explained} of the refusals say what helps");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_builder_reads_a_private_path() {
    let lab = planted!();
    let (node, path) = node_with_a_private_path(&lab, POLICY).await;
    let there = (&lab, &node);
    let mut bite = 0;
    for (n, input) in INPUTS.iter().enumerate() {
        // A name for each, or one would be given what was built for the other.
        let text = async |namespace: &str| {
            let name = format!("thief-{namespace}-{n}");
            let script = "$b cat $dir/inner > $out || echo nothing > $out";
            let text = builder(&name, &at(input, &path), script);
            publish(there, namespace, ("nixExpr", &text)).await
        };
        bite += usize::from(text("open").await.is_ok_and(|seen| seen.contains(MARK)));
        if let Ok(seen) = text("other").await {
            assert_eq!(seen, "nothing\n", "{input}");
        }
    }
    assert!(bite > 2, "{bite} of the inputs work at all");
    // A derivation that Nix has not written says what it likes of its inputs.
    for namespace in ["open", "other"] {
        let forged = forged(&path, namespace);
        let stolen = publish(there, namespace, ("nixExpr", &forged)).await;
        if namespace == "open" {
            assert_eq!(stolen.unwrap().trim(), MARK);
        } else {
            let status = stolen.unwrap_err();
            let told = format!("takes {path} without referring to it");
            assert!(status.message().contains(&told), "{status}");
        }
    }
    // What comes to the path itself, without a builder.
    for bare in ["builtins.storePath DIR", "DIR", "\"DIR\""] {
        assert!(publish(there, "other", ("nixExpr", &at(bare, &path))).await.is_err(), "{bare}");
    }
}

/// An expression that writes a derivation's text itself, for a builder that reads `dir`.
fn forged(dir: &str, namespace: &str) -> String {
    let (system, name) = (System::current(), format!("forged-{namespace}"));
    let text = |out: &str| {
        format!(
            r#"Derive([("out","{out}","","")],[],["{dir}"],"{system}","/bin/busybox",["sh","-c","/bin/busybox cat {dir}/inner > $out"],[("builder","/bin/busybox"),("name","{name}"),("out","{out}"),("system","{system}")])"#
        )
    };
    let out = output_path(&text(""), &name);
    let quoted = text(&out).replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "{{ type = \"derivation\"; name = \"{name}\"; system = \"{system}\"; outputName = \"out\"; \
         drvPath = builtins.toFile \"{name}.drv\" \"{quoted}\"; outPath = \"{out}\"; }}"
    )
}

/// Where a derivation without derivations for inputs puts its one output, from its text without that.
fn output_path(text: &str, name: &str) -> String {
    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let hash = hex::encode(Sha256::digest(text));
    let hash = Sha256::digest(format!("output:out:sha256:{hash}:/nix/store:{name}"));
    let mut folded = [0u8; 20];
    hash.iter().enumerate().for_each(|(n, byte)| folded[n % 20] ^= byte);
    let digit = |n: usize| {
        let (byte, shift) = (n * 5 / 8, n * 5 % 8);
        let high = folded.get(byte + 1).copied().map_or(0, u16::from);
        let two = high << 8 | u16::from(folded[byte]);
        char::from(DIGITS[usize::from(two >> shift & 31)])
    };
    let digits: String = (0..32).rev().map(digit).collect();
    format!("/nix/store/{digits}-{name}")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flake_has_a_private_path_for_its_input() {
    let lab = planted!();
    let (node, path) = node_with_a_private_path(&lab, POLICY).await;
    let web = lab.cache().await;
    let system = System::current();
    let read = seen("builtins.readFile \"${x}/inner\"");
    let inputs = format!("inputs.x = {{ url = \"path:{path}\"; flake = false; }};");
    let flake =
        format!("{{ {inputs} outputs = {{ x, ... }}: {{ packages.{system}.x = {read}; }}; }}");
    let dir = lab.path("flake");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("flake.nix"), flake).unwrap();
    let (parent, tarball) = (lab.path(""), web.file("thief.tar"));
    lab.ok("tar", &["-C", parent.to_str().unwrap(), "-cf", tarball.to_str().unwrap(), "flake"]);
    let reference = format!("{}/thief.tar#x", web.url());
    let there = (&lab, &node);
    let seen = publish(there, "open", ("flakeRef", &reference)).await.unwrap();
    assert_eq!(seen.trim(), MARK);
    let status = publish(there, "other", ("flakeRef", &reference)).await.unwrap_err();
    assert!(!status.message().contains(MARK), "{status}");
}

/// Who sees no store but its own has all that it needs: sources, imports, flakes, and what it built before.
#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_in_a_store_of_its_own_comes_to_the_same() {
    let lab = planted!();
    let (node, _) = node_with_a_private_path(&lab, POLICY).await;
    let web = lab.cache().await;
    let there = (&lab, &node);
    let part =
        builder("part", "src = builtins.toFile \"text\" \"from a file\";", "$b cat $src > $out");
    let imported = "(import (builtins.toFile \"f\" \"x: x + x\")) \"twice\"";
    let script = "$b cat $part $more/text > $out; echo $twice >> $out";
    let more = lab.path("more");
    fs::create_dir_all(&more).unwrap();
    fs::write(more.join("text"), " and a tarball ").unwrap();
    let (parent, tarball) = (lab.path(""), web.file("more.tar"));
    lab.ok("tar", &["-C", parent.to_str().unwrap(), "-cf", tarball.to_str().unwrap(), "more"]);
    let fetched = format!("builtins.fetchTarball \"{}/more.tar\"", web.url());
    let attributes = format!("part = {part}; twice = {imported}; more = {fetched};");
    let all = builder("all", &attributes, script);
    let expected = "from a file and a tarball twicetwice\n";
    for namespace in ["other", "open"] {
        assert_eq!(publish(there, namespace, ("nixExpr", &all)).await.unwrap(), expected);
    }
    lab.push_flake(&web, "of a flake");
    let reference = format!("{}/flake.tar#x", web.url());
    let text = publish(there, "other", ("flakeRef", &reference)).await;
    // Its builder is a shell that the sandbox does not have, which is known once it was evaluated.
    let text = text.map_err(|status| status.message().to_owned());
    assert!(text.as_ref().is_err_and(|text| text.contains("build of x failed")), "{text:?}");
    // What is its own is in no other's sight, and goes when it is not used.
    let homes = crate::lab::names(&lab.path("nix/var/nix-csi/tenants"));
    let stores = homes.iter().filter(|name| name.contains(".own")).count();
    assert_eq!(stores, 2, "{homes:?}: of web and other, none of open");
}
