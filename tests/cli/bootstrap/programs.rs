//! A node whose programs are an environment's alone, as an image of Nix's has them: copied into its store, and found
//! by `PATH=/nix/var/result/bin`. They are this machine's, which is without them then.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Host;
use crate::lab;
use crate::lab::{Lab, Node, Volume, node_binary};

/// Of an environment, beside the driver.
const PROGRAMS: &str =
    "nix nix-build nix-daemon nix-store git ssh ssh-keygen sshd mkfs.ext4 tar gzip sh cat";
/// What the machine keeps of its own: for the test, and for what sshd lets nobody replace.
const KEPT: [&str; 3] = ["cat", "env", "mount"];
const PATH: &str = "PATH=/nix/var/result/bin";
/// Debian's Nix starts itself where it was made to be.
const HOOK: &str = "build-hook=/nix/var/result/bin/build-remote";
const DRIVER: &str = "/nix/var/result/bin/nix-csi";
/// Evaluations' user.
const EVALUATOR: u32 = 30999;
const POLICY: &str = "preset: strict\ndefault: {nixExpr: true}\nnamespaces: {open: {storePath: true, writable: true}}\n";

/// An environment in the machine's store, as an image has it.
fn environment(lab: &Lab) -> String {
    let made = lab.path("environment");
    let bin = made.join("bin");
    fs::create_dir_all(&bin).unwrap();
    // Without what a debugger needs, it is a third.
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(bin.join("nix-csi")).arg(node_binary());
    assert!(strip.status().unwrap().success());
    // A root of another Nix has no git, and that Nix needs none here.
    let copy = format!(
        "PATH=/usr/bin:/usr/sbin; cd $0
         for name in {PROGRAMS}; do if found=$(command -v $name); then cp -L $found $name; fi; done
         cp nix build-remote"
    );
    lab.ok("sh", &["-euc", &copy, bin.to_str().unwrap()]);
    let environment = lab.ok("nix-store", &["--add", made.to_str().unwrap()]);
    lab.inside(|| symlink(&environment, "/nix/var/result").unwrap());
    environment
}

/// Takes its programs from the machine.
fn hide(lab: &Lab, environment: &str) {
    let bin = lab.path("bin");
    fs::create_dir(&bin).unwrap();
    let copy = format!("cd /usr/bin; cp -L {} $0", KEPT.join(" "));
    lab.ok("sh", &["-euc", &copy, bin.to_str().unwrap()]);
    symlink(format!("{environment}/bin/sh"), bin.join("sh")).unwrap();
    for dir in ["/usr/sbin", "/usr/local/bin"] {
        lab.ok("mount", &["-t", "tmpfs", "none", dir]);
    }
    lab.ok("mount", &["--bind", bin.to_str().unwrap(), "/usr/bin"]);
}

/// The environment's driver with nothing else in its environment.
fn driver(lab: &Lab) -> Command {
    let mut command = lab.command("env");
    command.args(["-i", PATH, "NIX_CSI_SSHD=/nix/var/result/bin/sshd", DRIVER]);
    command
}

/// A git repository of one file, which the evaluator may read.
fn repository(lab: &Lab) -> String {
    let dir = lab.path("repository");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("text"), "by git").unwrap();
    for args in [
        &["init", "-q"][..],
        &["add", "text"],
        &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "a"],
    ] {
        assert!(Command::new("git").arg("-C").arg(&dir).args(args).status().unwrap().success());
    }
    let owner = format!("{EVALUATOR}:{EVALUATOR}");
    let chown = Command::new("chown").args(["-R", &owner]).arg(&dir).status();
    assert!(chown.unwrap().success());
    dir.to_str().unwrap().to_owned()
}

/// As a kubelet of a pod of that namespace asks for it.
fn volume(lab: &Lab, namespace: &str, attributes: &[(&str, &str)]) -> Volume {
    let pod = [
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.name", namespace),
        ("csi.storage.k8s.io/pod.namespace", namespace),
        ("csi.storage.k8s.io/pod.uid", namespace),
        ("csi.storage.k8s.io/serviceAccount.name", "default"),
    ];
    let volume = lab.volume(namespace, &[attributes, &pod].concat());
    let parent = lab.target("pods").join(namespace).join("volumes/kubernetes.io~csi/nix");
    fs::create_dir_all(&parent).unwrap();
    Volume { target: parent.join("mount"), ..volume }
}

async fn reads(lab: &Lab, node: &Node, volume: &Volume) -> String {
    node.publish(volume).await.unwrap_or_else(|status| panic!("{status}\n{}", node.log()));
    lab.ok("cat", &[volume.target.join("var/result").to_str().unwrap()])
}

/// What this machine's ssh says to a login at the node.
fn login(lab: &Lab, port: u16, key: &Path) -> Output {
    let known = lab.path("known_hosts");
    let host = lab.inside(|| fs::read_to_string("/nix/var/nix-csi/ssh/host_ed25519.pub"));
    fs::write(&known, format!("[127.0.0.1]:{port} {}", host.unwrap())).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"]).arg(key);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
    ssh.args(["-p", &port.to_string(), "nix@127.0.0.1"]).stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_all_that_it_starts_in_the_environment() {
    let lab = lab!();
    let environment = environment(&lab);
    let (host, repository) = (Host::new(&lab, 500), repository(&lab));
    let key = lab.ssh_key("builder");
    lab.authorize("builder", &key);
    let policy = lab.path("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    hide(&lab, &environment);

    let output = driver(&lab).args(["bootstrap", "--to", host.text()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    lab.ok("mount", &["--bind", host.text(), "/nix"]);
    assert_eq!(
        lab.run("nix", &["--version"]).status.code(),
        Some(127),
        "it is the environment's alone"
    );
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut node = lab
        .node_by(
            driver(&lab),
            &[
                &["--policy-file", policy.to_str().unwrap(), "--eval-mode", "impure"][..],
                &["--eval-path", &repository, "--nix-option", HOOK],
                &["--ssh-listen", &format!("127.0.0.1:{port}")],
                &["--authorized-keys", lab.path("keys").to_str().unwrap()],
            ]
            .concat(),
        )
        .await;
    assert_eq!(node.status().await.node.unwrap().presentation_reason, "");

    // `web` sees no path of the store but those of programs, `open` all.
    for namespace in ["web", "open"] {
        let expression = format!(
            "derivation {{ name = \"{namespace}\"; system = builtins.currentSystem; builder = \"/bin/sh\";
               text = builtins.readFile (builtins.fetchGit \"file://{repository}\" + \"/text\");
               args = [ \"-c\" \"echo $name $text > $out\" ]; }}"
        );
        let made = volume(&lab, namespace, &[("nixExpr", &expression)]);
        assert_eq!(reads(&lab, &node, &made).await, format!("{namespace} by git"));
        node.unpublish(&made).await.unwrap();
    }
    let bounded = volume(&lab, "open", &[("storePath", &environment), ("size", "64Mi")]);
    node.publish(&bounded.clone().writable()).await.unwrap();
    node.unpublish(&bounded).await.unwrap();
    let output = login(&lab, port, &key);
    assert_ne!(output.status.code(), Some(255), "{output:?}\n{}", node.log());
    assert_eq!(node.stop(), Some(0));
    assert_eq!(host.link(&lab, "current"), environment);
}
