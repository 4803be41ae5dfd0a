//! Builders that look for the token, the driver's state and the network.

use nix_csi::nix::{Capabilities, holes};

use crate::planted;
use crate::world::{
    MARK, OTHERS, SANDBOXED, TOKEN, TOKENS_FILE, builder, content, refusal, seen, traces,
};

#[tokio::test]
async fn a_build_sees_its_inputs_and_nothing_of_the_node() {
    let lab = planted!();
    let node = lab.node(&[SANDBOXED, &["--access-tokens-file", TOKENS_FILE]].concat()).await;
    // Of another tenant, and in the store.
    content(&lab, &node, &seen("\"others\"")).await;
    let found = async |name: &str, script: &str| {
        content(&lab, &node, &builder(name, "", &format!("({script}) > $out 2>&1; true"))).await
    };
    let run = lab.path("run");
    let run = run.to_str().unwrap();
    let paths = [
        TOKEN,
        TOKENS_FILE,
        OTHERS,
        run,
        "/run",
        "/var",
        "/root",
        "/home",
        "/usr",
        "/etc/shadow",
        "/sys",
        "/nix/var",
        "/dev/vda",
        "/dev/mem",
        "/proc/1/root/run",
    ];
    let look = paths.map(|path| format!("[ -e {path} ] && echo {path};")).concat();
    assert_eq!(found("paths", &look).await, "");
    let root = found("root", "$b ls -A / /etc /nix /build").await;
    assert_eq!(
        root,
        "/:\nbin\nbuild\ndev\netc\nnix\nproc\ntmp\n\n/build:\n\n/etc:\ngroup\nhosts\npasswd\n\n/nix:\nstore"
    );
    let store = found("store", "for path in /nix/store/*; do echo ''${path#*-}; done").await;
    assert_eq!(store, "store");
    // Its own processes.
    let numbers = found("processes", "cd /proc; for p in [0-9]*; do echo $p; done").await;
    assert!(numbers.lines().all(|number| number.parse::<u32>().unwrap() < 10), "{numbers}");
    let id =
        found("id", "$b id -u; $b grep -E '^Cap(Prm|Eff)|^NoNewPrivs' /proc/self/status").await;
    let (user, id) = id.split_once('\n').unwrap();
    assert_ne!(user, "0");
    let none = "0000000000000000";
    assert_eq!(id, format!("CapPrm:\t{none}\nCapEff:\t{none}\nNoNewPrivs:\t1"));
    let variables = found("variables", "$b env").await;
    for word in [MARK, "KUBERNETES", "NIX_CSI", "access"] {
        assert!(!variables.contains(word), "{variables}");
    }
    let out =
        "mount -t tmpfs x /build; umount /proc; chroot / /bin/busybox true; mknod /build/n c 1 3";
    let out = out
        .split("; ")
        .map(|way| format!("$b {way} 2>/dev/null && echo '{way}';"))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(found("out", &out).await, "");
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// A fixed-output one has the node's network, by Nix's design.
#[tokio::test]
async fn only_a_build_with_a_known_result_has_the_network() {
    let lab = planted!();
    let node = lab.node(SANDBOXED).await;
    let server = lab.cache().await;
    server.put("file", "fetched");
    let get = format!("$b wget -q -O - {}/file", server.url());
    let script = format!(
        "({get} || echo refused; $b cat /proc/net/dev /proc/net/route | $b tail -n +3) > $out 2>/dev/null; true"
    );
    let seen = content(&lab, &node, &builder("plain", "", &script)).await;
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("refused"));
    // A loopback of its own, and no route.
    assert!(lines.next().is_some_and(|line| line.trim().starts_with("lo:")), "{seen}");
    assert!(lines.next().is_some_and(|line| line.starts_with("Iface")), "{seen}");
    assert_eq!((lines.next(), server.requests()), (None, 0), "{seen}");
    let fixed = "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = builtins.hashString \"sha256\" \"fetched\";";
    assert_eq!(
        content(&lab, &node, &builder("fixed", fixed, &format!("{get} > $out"))).await,
        "fetched"
    );
    assert_eq!(server.requests(), 1);
    // It has no files of the node for that.
    let look = format!(
        "{get} > $out; for f in {TOKEN} {OTHERS} /nix/var /run /var; do [ ! -e $f ] || echo $f >> $out; done"
    );
    assert_eq!(content(&lab, &node, &builder("fixed-look", fixed, &look)).await, "fetched");
}

/// Attributes and builders of Nix's own that ask for more.
#[tokio::test]
async fn a_derivation_can_not_ask_for_more() {
    let lab = planted!();
    let node = lab.node(SANDBOXED).await;
    let read = format!("$b cat {TOKEN} > $out");
    let (dir, _) = TOKEN.rsplit_once('/').unwrap();
    let none = format!("cat: can't open '{TOKEN}': No such file or directory");
    let known = "outputHashMode = \"flat\"; outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";";
    let builtin = |kind: &str, more: &str| {
        format!(
            "derivation {{ name = \"x\"; system = \"builtin\"; builder = \"builtin:{kind}\"; {more} }}"
        )
    };
    for (expression, expected) in [
        (builder("plain", "", &read), &*none),
        (
            builder("named", "sandbox = false; __sandboxProfile = \"(allow default)\";", &read),
            &none,
        ),
        (
            builder("chroot", "__noChroot = true;", &read),
            "has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'",
        ),
        (
            builder("impure", &format!("__impureHostDeps = [ \"{dir}\" ];"), &read),
            "was not in allowed-impure-host-deps",
        ),
        (
            builder("graph", &format!("exportReferencesGraph = [ \"x\" \"{TOKEN}\" ];"), &read),
            "store",
        ),
        (builtin("fetchurl", &format!("url = \"file://{TOKEN}\"; {known}")), "read a file:// file"),
        (builtin("unpack-channel", &format!("src = \"{TOKEN}\"; channelName = \"x\";")), "open"),
        (
            builtin(
                "buildenv",
                &format!(
                    "derivations = [ \"true\" \"5\" \"1\" \"{dir}\" ]; manifest = \"{TOKEN}\";"
                ),
            ),
            "No such file or directory",
        ),
    ] {
        let text = refusal(&lab, &node, "nixExpr", &expression).await;
        assert!(text.contains(expected) && !text.contains("hash mismatch"), "{expression}: {text}");
    }
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// A sandbox is as good as the Nix that makes it.
#[tokio::test]
async fn holes_that_are_known_of_this_nix_are_told_at_the_start() {
    let lab = planted!();
    let version = lab.ok("nix", &["--version"]);
    let known: Vec<_> =
        holes(&Capabilities::parse(&version).unwrap()).map(|hole| hole.id).collect();
    assert_eq!(version.ends_with(" 2.8.0"), known == ["CVE-2024-27297", "CVE-2025-52992"]);
    let log = lab.node(&[]).await.log();
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains("CVE-"));
    let id = |line: &str| {
        let (_, rest) = line.split_once("hole=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    assert_eq!(told.map(id).collect::<Vec<_>>(), known, "{log}");
}
