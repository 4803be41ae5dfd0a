//! What a node's own processes keep of root's powers, and what they need them for: see docs/security.md. In a
//! cluster `tests/e2e/privileges.rs` looks at the project's own pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix_csi::jail::capabilities::{CapabilitySet, DAEMON, NODE, NOTHING, names};

use crate::lab::{Lab, unique, until};
use crate::planted;
use crate::world::{SANDBOXED, builder, content, of_pod};

/// Command and status of each process of the machine that is the node's: it alone is a `nix-csi node`.
fn processes(lab: &Lab) -> Vec<(String, BTreeMap<String, String>)> {
    let processes = lab.processes();
    let pids = processes.iter().filter_map(|line| Some((line.split(' ').next()?, line)));
    let each = pids.filter_map(|(pid, line)| {
        let status = fs::read_to_string(lab.proc().join(pid).join("status")).ok()?;
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Some((line.clone(), fields.collect()))
    });
    each.collect()
}

type Powers = ([String; 3], bool, bool);

/// Its capabilities by each set that counts, whether it can get new ones, and whether calls are refused.
fn powers(status: &BTreeMap<String, String>) -> Powers {
    let set = |name: &str| {
        let bits = u64::from_str_radix(&status[name], 16).unwrap();
        names(CapabilitySet::from_bits_retain(bits))
    };
    (["CapPrm", "CapEff", "CapBnd"].map(set), status["NoNewPrivs"] == "0", status["Seccomp"] == "2")
}

const SLOW: &str = "let many = n: builtins.genList (x: x) n; in builtins.toString (builtins.foldl' \
    (a: _: builtins.foldl' builtins.add a (many 100000)) 0 (many 20000))";

/// Powers of the node, its daemon, an evaluator and a command that waits for a build.
async fn of_all(lab: Lab, more: &[&str]) -> BTreeMap<&'static str, Powers> {
    let node = lab.node(&[SANDBOXED, more].concat()).await;
    let slow = of_pod(lab.volume("slow", &[("nixExpr", SLOW)]), "web");
    let long = builder("long", "", "$b sleep 1000");
    let long = of_pod(lab.volume("long", &[("nixExpr", &long)]), "web");
    let mut found = BTreeMap::new();
    let look = until("all of them", async || {
        for (command, status) in processes(&lab) {
            let command = command.splitn(3, ' ').nth(2).unwrap_or_default();
            let role = match &*status["Name"] {
                "nix-csi" if command.contains("nix-csi node") => "node",
                "nix-daemon" => "daemon",
                "nix" if status["Uid"].starts_with("30999") => "evaluator",
                "nix-store" if command.contains("--realise") => "command",
                _ => continue,
            };
            found.insert(role, powers(&status));
        }
        found.len() == 4
    });
    tokio::select! {
        () = look => {}
        ended = async { tokio::join!(node.publish(&slow), node.publish(&long)) } => {
            panic!("they wait: {ended:?}")
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_keeps_what_it_needs() {
    let least = of_all(planted!(), &[]).await;
    let ours = rustix::thread::capabilities(None).unwrap().permitted;
    let has = |set: CapabilitySet| [(); 3].map(|()| names(set & ours));
    assert_eq!(least["node"], (has(NODE), false, false));
    assert_eq!(least["daemon"], (has(DAEMON), false, false));
    assert_eq!(least["command"], (has(NOTHING), false, true));
    assert_eq!(least["evaluator"], (has(NOTHING), false, true));
    // The documented way out. An evaluator has no powers all the same.
    let all = of_all(planted!(), &["--privileges", "all"]).await;
    for role in ["node", "daemon", "command"] {
        assert_eq!(all[role], (has(ours), true, false), "{role}");
    }
    assert_eq!(all["evaluator"], (has(NOTHING), false, false));
}

/// Programs of Nix's that first write down what they may do; `nix` among them.
fn telling(lab: &Lab) -> PathBuf {
    let script = r#"mkdir $0 $0/said; for name in nix nix-store nix-build nix-daemon; do
        printf '#!/bin/sh\n{ echo "%s $*"; echo "Remote: $NIX_REMOTE"; cat /proc/self/status; } >%s/$$\n' \
            $name $0 >$0/$name
        printf 'mv %s/$$ %s/said\nexec %s "$@"\n' $0 $0 "$(command -v $name)" >>$0/$name; chmod 755 $0/$name; done"#;
    let dir = lab.path("telling");
    lab.ok("sh", &["-euc", script, dir.to_str().unwrap()]);
    dir.join("nix")
}

/// What they wrote since the last time: each command, whether it asks a daemon, and its powers.
fn told(nix: &Path) -> Vec<(String, bool, Powers)> {
    let said = nix.with_file_name("said");
    let each = fs::read_dir(said).unwrap().map(|entry| {
        let file = entry.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(file).unwrap();
        let (command, rest) = text.split_once('\n').unwrap();
        let fields = rest.lines().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let status: BTreeMap<_, _> = fields.collect();
        (command.to_owned(), status["Remote"].starts_with("unix"), powers(&status))
    });
    each.collect()
}

/// Also those of the start: who asks a daemon has nothing, and who does its work what a daemon has.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_has_more_than_it_needs() {
    let lab = planted!();
    let nix = telling(&lab);
    let of_ours = [SANDBOXED, &["--nix", nix.to_str().unwrap()]].concat();
    drop(lab.node(&of_ours).await);
    let alone = told(&nix);
    let socket = lab.path("lent");
    let mut daemon = lab.command("env");
    daemon.arg(format!("NIX_DAEMON_SOCKET_PATH={}", socket.display())).arg("NIX_REMOTE=local");
    let mut daemon = daemon.args(["nix-daemon", "--option", "sandbox", "false"]).spawn().unwrap();
    until("the lent daemon", async || socket.try_exists().unwrap()).await;
    let of_others =
        ["--nix", nix.to_str().unwrap(), "--nix-daemon-socket", socket.to_str().unwrap()];
    drop(lab.node(&of_others).await);
    let lent = told(&nix);
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    let ours = rustix::thread::capabilities(None).unwrap().permitted;
    let has = |set: CapabilitySet| [(); 3].map(|()| names(set & ours));
    for (command, asks, powers) in alone.iter().chain(&lent) {
        let kept = if *asks { NOTHING } else { DAEMON };
        assert_eq!(*powers, (has(kept), false, *asks), "{command}");
    }
    for (told, wanted) in [
        (&alone, &["--version", "show-config", "--init", "nix-build", "nix-daemon"][..]),
        (&lent, &["--version", "--add", "--print-roots"]),
    ] {
        for word in wanted {
            assert!(told.iter().any(|(command, ..)| command.contains(word)), "{word}: {told:?}");
        }
    }
}

/// Every capability that is kept has its row, and no other.
#[test]
fn the_documentation_has_each() {
    let text = include_str!("../../docs/security.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let named = rows.filter_map(|(name, _)| CapabilitySet::from_name(name));
    assert_eq!(names(named.collect()), names(NODE));
}

/// CAP_SYS_PTRACE: a collector that does not see what another user's process has open takes it away.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_users_process_has_open_is_kept() {
    let lab = planted!();
    let eager = [
        "--gc-older-than",
        "1s",
        "--gc-grace",
        "0s",
        "--gc-interval",
        "100ms",
        "--gc-look-interval",
        "100ms",
        "--gc-high-watermark",
        "100",
    ];
    let node = lab.node(&eager).await;
    let open = lab.unrooted(&["--argstr", "seed", "open"]);
    let mut reader = lab.command("setpriv");
    let script = format!("exec sleep 900 <$(find {open}/ -type f | head -n 1)");
    reader.args(["--reuid", "1000", "--clear-groups", "sh", "-euc", &script]);
    let mut reader = reader.spawn().unwrap();
    let is_valid = |path: &str| lab.run("nix-store", &["--check-validity", path]).status.success();
    until("the reader", async || lab.processes().iter().any(|line| line.ends_with("sleep 900")))
        .await;
    // What is younger goes, so this one was looked at.
    let other = lab.unrooted(&["--argstr", "seed", "other"]);
    until("another one to go", async || !is_valid(&other)).await;
    assert!(is_valid(&open));
    let pid = lab.processes().into_iter().find(|line| line.ends_with("sleep 900")).unwrap();
    lab.kill(pid.split(' ').next().unwrap());
    reader.wait().unwrap();
    until("it to go", async || !is_valid(&open)).await;
    drop(node);
}

/// CAP_FSETID: an overlay acts on what a pod writes as who has mounted it.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_for_a_group_stays_one_in_a_writable_volume() {
    let lab = planted!();
    let node = lab.node(SANDBOXED).await;
    let root = lab.closure(&[]);
    let mut volume = of_pod(lab.volume("shared", &[("storePath", &root)]), "web");
    volume.readonly = false;
    node.publish(&volume).await.unwrap();
    let dir = volume.target.join("var/shared");
    let script =
        format!("mkdir {0}; chgrp 1234 {0}; chmod 2775 {0}; stat -c '%a %g' {0}", dir.display());
    assert_eq!(lab.ok("sh", &["-euc", &script]), "2775 1234");
    node.unpublish(&volume).await.unwrap();
}

/// It does what it did, whatever it has given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxed_build_works_with_what_is_left() {
    let lab = planted!();
    let node = lab.node(SANDBOXED).await;
    let text = content(&lab, &node, &builder("left", "", "echo built > $out")).await;
    assert_eq!(text, "built");
}

/// Opens a file of the kernel's, which it does not write, and notes by its own name how that went.
const HOSTILE: &str = "#!/bin/sh
    { ( : >>/proc/sys/kernel/core_pattern ) 2>&1 && echo open; } >$0.new; mv $0.new $0.said\n";

/// What an upload program and a hook of nix-daemon's make of it.
async fn kernels_files(lab: &Lab, is_contained: bool, more: &[&str]) -> [String; 2] {
    let programs = ["upload", "hook"].map(|name| lab.path(name));
    for program in &programs {
        fs::write(program, HOSTILE).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(program, executable).unwrap();
        let _ = fs::remove_file(program.with_extension("said"));
    }
    let [upload, hook] = programs.each_ref().map(|program| program.to_str().unwrap().to_owned());
    let hook = format!("post-build-hook={hook}");
    let settings =
        [SANDBOXED, &["--nix-option", &hook, "--upload-command", &upload], more].concat();
    let node =
        if is_contained { lab.contained_node(&settings).await } else { lab.node(&settings).await };
    let built = builder(&format!("built{}", unique()), "", "echo built > $out");
    let volume = of_pod(lab.volume("built", &[("nixExpr", &built)]), "web");
    node.publish(&volume).await.unwrap();
    let said = programs.map(|program| program.with_extension("said"));
    until("both", async || said.iter().all(|said| said.try_exists().unwrap())).await;
    node.unpublish(&volume).await.unwrap();
    said.map(|said| fs::read_to_string(said).unwrap())
}

/// `core_pattern` alone would be the machine's root. In a container nobody writes it, and builds have their
/// sandbox; where the machine's own /proc/sys is left alone, what has no capability does not.
#[tokio::test(flavor = "multi_thread")]
async fn no_process_of_a_container_writes_the_kernels_files() {
    let [upload, hook] = kernels_files(&planted!(), true, &["--privileges", "all"]).await;
    assert_eq!([&*upload, &*hook], ["open\n"; 2]);
    for said in kernels_files(&planted!(), true, &[]).await {
        assert!(said.contains("Read-only file system"), "{said}");
    }
    let [upload, hook] = kernels_files(&planted!(), false, &[]).await;
    assert!(upload.contains("Permission denied"), "{upload}");
    assert_eq!(hook, "open\n");
}
