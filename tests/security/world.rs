//! A machine with things in it that no tenant may see.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use nix_csi::grpc::client::{Code, Status};
use nix_csi::model::System;

use crate::lab::{Lab, Node, Volume};

/// In everything that is secret, and in nothing else.
pub(crate) const MARK: &str = "hunter2hunter2";
pub(crate) const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
pub(crate) const TOKENS_FILE: &str = "/run/driver/access-tokens";
/// Of another user, in a directory that everybody may enter.
pub(crate) const OTHERS: &str = "/run/others/key";
/// Who asks for the access tokens.
pub(crate) const FORGE: &str = "127.7.7.7";

/// A builder that needs nothing else has a sandbox with only itself in it.
pub(crate) const SANDBOXED: &[&str] =
    &["--nix-option", "sandbox=true", "--nix-option", "sandbox-paths=/bin/busybox"];

/// With the driver's token, the access tokens and another user's file, in memory of the machine.
pub(crate) fn planted() -> Result<Lab, String> {
    let lab = Lab::new()?;
    let script = format!(
        "mount -t tmpfs -o mode=755 secrets /run
         for file in {TOKEN} {TOKENS_FILE} {OTHERS}; do
             mkdir -p ${{file%/*}}; echo {MARK} > $file
         done
         echo 'access-tokens = {FORGE}=PAT:{MARK}' > {TOKENS_FILE}
         chmod 644 {TOKEN}; chmod 600 {TOKENS_FILE} {OTHERS}; chown 1000 {OTHERS}"
    );
    lab.ok("sh", &["-euc", &script]);
    Ok(lab)
}

/// What the kubelet adds for a pod of `namespace`.
pub(crate) fn of_pod(mut volume: Volume, namespace: &str) -> Volume {
    for (key, value) in [
        ("pod.name", "pod"),
        ("pod.namespace", namespace),
        ("pod.uid", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        ("serviceAccount.name", "default"),
        ("ephemeral", "true"),
    ] {
        volume.attributes.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
    }
    volume
}

/// The same at a place that a kubelet makes for it, where the node has a policy.
pub(crate) fn kubelets(lab: &Lab, name: &str, namespace: &str, source: (&str, &str)) -> Volume {
    let volume = of_pod(lab.volume(name, &[source]), namespace);
    let uid = &volume.attributes["csi.storage.k8s.io/pod.uid"];
    let parent = lab.target("pods").join(uid).join("volumes/kubernetes.io~csi").join(name);
    fs::create_dir_all(&parent).unwrap();
    Volume { target: parent.join("mount"), ..volume }
}

/// Publishes for a pod.
pub(crate) async fn publish(
    lab: &Lab,
    node: &Node,
    key: &str,
    text: &str,
) -> Result<Volume, Status> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("v{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let volume = of_pod(lab.volume(&name, &[(key, text)]), "web");
    node.publish(&volume).await.map(|()| volume)
}

/// What a volume that is one file has in it.
pub(crate) async fn content(lab: &Lab, node: &Node, expression: &str) -> String {
    let volume = publish(lab, node, "nixExpr", expression).await.unwrap();
    let text = lab.ok("cat", &[volume.target.join("var/result").to_str().unwrap()]);
    node.unpublish(&volume).await.unwrap();
    text
}

/// The text of a refusal, which is final and has no secret in it.
pub(crate) async fn refusal(lab: &Lab, node: &Node, key: &str, text: &str) -> String {
    let status = publish(lab, node, key, text).await.err().unwrap_or_else(|| panic!("{text}"));
    assert!(!status.message().contains(MARK), "{text}: {status}");
    let expected = [Code::InvalidArgument, Code::FailedPrecondition];
    assert!(expected.contains(&status.code()), "{text}: {status}");
    status.message().to_owned()
}

/// A builder that has nothing but busybox, as `$b`.
pub(crate) fn builder(name: &str, more: &str, script: &str) -> String {
    let system = System::current();
    format!(
        "derivation {{ name = \"{name}\"; system = \"{system}\"; {more}
           builder = \"/bin/busybox\"; args = [ \"sh\" \"-c\" ''b=/bin/busybox; {script}'' ]; }}"
    )
}

/// A file with what an expression evaluates to, for [`content`].
pub(crate) fn seen(expression: &str) -> String {
    builder("seen", &format!("text = {expression};"), "printf %s \"$text\" > $out")
}

/// Files of the machine's store, of the tenants' homes, of records and logs that have the secret.
pub(crate) fn traces(lab: &Lab, node: &Node) -> Vec<String> {
    let dirs = ["nix", "run", "targets"].map(|dir| lab.path(dir));
    let mut grep = std::process::Command::new("grep");
    grep.args(["--recursive", "--binary-files=text", "--files-with-matches", "--devices=skip"]);
    let output = grep.arg("-e").arg(MARK).args(dirs).arg(&node.log).output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(output.stdout.is_empty())), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Arguments and environments of all processes of the machine, with the number of processes.
pub(crate) fn processes(lab: &Lab) -> (usize, String) {
    let proc = lab.proc();
    let numbers: Vec<_> =
        lab.processes().iter().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
    let read = |number: &String| {
        ["cmdline", "environ"].map(|file| {
            let bytes = fs::read(proc.join(number).join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        })
    };
    (numbers.len(), numbers.iter().flat_map(read).collect::<Vec<_>>().join("\n"))
}

/// The machine, or a visible skip.
#[macro_export]
macro_rules! planted {
    () => {
        match $crate::world::planted() {
            Ok(lab) => lab,
            Err(reason) => {
                $crate::lab::skipped(module_path!(), &reason);
                return;
            }
        }
    };
}
