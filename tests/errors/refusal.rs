//! A publish that is refused: its code, its text, and that it leaves nothing.

use nix_csi::grpc::client::Code;
use nix_csi::grpc::proto::csi::NodePublishVolumeRequest;
use nix_csi::model::System;

use crate::lab::{Lab, Node, Volume};

/// An event of Kubernetes holds 1 KiB; a build's log may be longer, but not by much.
const MOST_BYTES: usize = 6 * 1024;

/// A source that must be refused. Where the words are Nix's own they differ between versions.
pub struct Case {
    key: &'static str,
    value: String,
    code: Code,
    text: String,
    /// Of a version of Nix, instead of the above.
    others: Vec<(&'static str, Code, String)>,
}

impl Case {
    /// `SYSTEM`, `HASH`, `LOCK` and `N` in `text` stand for this machine's system, 32 characters of
    /// a store path, the parameters that lock a flake, and a number of seconds or milliseconds.
    pub fn new(key: &'static str, value: &str, code: Code, text: &str) -> Self {
        Self { key, value: value.to_owned(), code, text: text.to_owned(), others: vec![] }
    }

    pub fn on(self, version: &'static str, text: &str) -> Self {
        let code = self.code;
        self.with_code(version, code, text)
    }

    pub fn with_code(mut self, version: &'static str, code: Code, text: &str) -> Self {
        self.others.push((version, code, text.to_owned()));
        self
    }

    fn expected(&self, version: &str) -> (Code, String) {
        let other = self.others.iter().find(|(of, ..)| *of == version);
        let (code, text) = other.map_or((self.code, &self.text), |(_, code, text)| (*code, text));
        (code, text.replace("SYSTEM", &System::current().to_string()))
    }
}

/// Publishes each, and compares code and text exactly.
pub async fn check(lab: &Lab, node: &Node, cases: &[Case]) {
    let version = node.status().await.node.unwrap().nix_version;
    let version = version.strip_prefix("Nix ").unwrap_or(&version);
    let mut wrong = Vec::new();
    for case in cases {
        let volume = lab.volume("bad", &[(case.key, &case.value)]);
        let (code, text) = refused(lab, node, &volume, volume.request()).await;
        let (got, expected) = ((code, steady(&text)), case.expected(version));
        if got != expected {
            wrong.push(format!("got      {got:?}\nexpected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "Nix {version}:\n{}", wrong.join("\n"));
}

/// Without what differs from run to run.
fn steady(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for i in 1..words.len() {
        let is_unit = words[i].starts_with("ms") || ["s", "s:", "s)"].contains(&&*words[i]);
        if is_unit && words[i - 1].parse::<f32>().is_ok() {
            "N".clone_into(&mut words[i - 1]);
        }
    }
    for word in &mut words {
        if let Some((flake, _)) = word.split_once("?lastModified=") {
            *word = format!("{flake}?LOCK'");
        }
    }
    let text = words.join(" ");
    match text.split_once("'/nix/store/") {
        Some((before, after)) if after[32..].starts_with("-broken") => {
            format!("{before}'/nix/store/HASH{}", &after[32..])
        }
        _ => text,
    }
}

/// Publishes, and gives the code and the text of the refusal.
pub async fn refused(
    lab: &Lab,
    node: &Node,
    volume: &Volume,
    request: NodePublishVolumeRequest,
) -> (Code, String) {
    let status = node.publish_request(request).await.expect_err("it must be refused");
    let text = status.message().to_owned();
    nothing_stays(lab, node, volume).await;
    let odd = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(odd), "control characters: {text:?}");
    assert!(!text.is_empty() && text.len() <= MOST_BYTES, "{} bytes: {text}", text.len());
    (status.code(), text)
}

/// No record, no root of a build, no mount, no directory, no writable layer, no volume.
pub async fn nothing_stays(lab: &Lab, node: &Node, volume: &Volume) {
    let status = node.status().await;
    assert!(status.volumes.iter().all(|v| v.volume_id != volume.id), "{:?}", status.volumes);
    assert_eq!(status.builds, [], "builds");
    let empty: &[&str] = &[];
    for dir in ["/nix/var/nix/gcroots/nix-csi/builds", "/nix/var/nix-csi/volumes"] {
        assert_eq!(lab.names(dir), empty, "{dir}");
    }
    assert_eq!(lab.names(lab.path("run/volumes").to_str().unwrap()), empty, "records");
    assert_eq!(lab.mounts_below(&lab.path("targets")), empty, "mounts");
    assert_eq!(lab.names(lab.path("targets").to_str().unwrap()), empty, "directories");
}
