//! Expressions that read what is not theirs, in each mode, and that build to see it.

use futures::future::join_all;

use crate::lab::{Lab, Node};
use crate::planted;
use crate::world::{
    MARK, OTHERS, SANDBOXED, TOKEN, TOKENS_FILE, builder, content, publish, refusal, seen, traces,
};

/// Ways to read the file FILE in the directory DIR.
const WAYS: &[&str] = &[
    "builtins.readFile FILE",
    "builtins.readFile \"FILE\"",
    "builtins.readDir DIR",
    "import FILE",
    "builtins.scopedImport { } FILE",
    "builtins.path { path = FILE; }",
    "builtins.path { path = DIR; name = \"x\"; }",
    "builtins.filterSource (_: _: true) DIR",
    "\"${FILE}\"",
    "builtins.toFile \"x\" (builtins.readFile FILE)",
    "builtins.hashFile \"sha256\" FILE",
    "derivation { name = \"x\"; system = \"x\"; builder = \"x\"; src = FILE; }",
    "builtins.fetchTree { type = \"path\"; path = \"DIR\"; }",
    "builtins.fetchTree { type = \"git\"; url = \"file://DIR\"; }",
    "builtins.fetchTree { type = \"tarball\"; url = \"file://FILE\"; }",
    "builtins.fetchGit DIR",
    "builtins.fetchGit { url = \"file://DIR\"; }",
    "builtins.fetchTarball \"file://FILE\"",
    "builtins.fetchurl \"file://FILE\"",
    "builtins.getFlake \"path:DIR\"",
    "builtins.getFlake \"git+file://DIR\"",
];

const SETTINGS: &[&str] =
    &["--eval-mode", "--eval-path", "--allowed-uri", "--allow-import-from-derivation"];

fn with(way: &str, file: &str) -> String {
    let (dir, _) = file.rsplit_once('/').unwrap();
    way.replace("FILE", file).replace("DIR", dir)
}

/// Files of the node: the driver's token, settings, sockets, records and environment, and others'.
fn files(lab: &Lab) -> Vec<String> {
    let node = lab.processes().into_iter().find(|line| line.contains("nix-csi node"));
    let node = node.unwrap().split(' ').next().unwrap().to_owned();
    let run = |name: &str| lab.path("run").join(name).to_str().unwrap().to_owned();
    let record = crate::lab::names(&lab.path("run/volumes")).remove(0);
    let tenant = crate::lab::names(&lab.path("nix/var/nix-csi/tenants")).remove(0);
    vec![
        TOKENS_FILE.to_owned(),
        OTHERS.to_owned(),
        "/etc/shadow".to_owned(),
        format!("/proc/{node}/environ"),
        run("csi.sock"),
        run("admin.sock"),
        run("nix-daemon/socket"),
        run(&format!("volumes/{record}")),
        format!("/nix/var/nix-csi/tenants/{tenant}/.cache"),
        "/nix/var/nix/db/db.sqlite".to_owned(),
        "/nix/var/nix/daemon-socket/socket".to_owned(),
    ]
}

/// Each is refused, and says by which setting.
async fn all_refused(lab: &Lab, node: &Node, expressions: &[String]) {
    let refusals = expressions.iter().map(|expression| async move {
        (expression, refusal(lab, node, "nixExpr", expression).await)
    });
    let is_named = |text: &str| {
        // Not every root has one.
        let no_git = text.ends_with("git is not installed on this node");
        no_git || SETTINGS.iter().any(|setting| text.contains(setting))
    };
    let nameless = join_all(refusals).await.into_iter().filter(|(_, text)| !is_named(text));
    assert_eq!(nameless.collect::<Vec<_>>(), [], "no setting is named");
}

async fn in_mode(mode: &str) {
    let lab = planted!();
    let once = ["--nix-option", "download-attempts=1"];
    let options = ["--eval-mode", mode, "--access-tokens-file", TOKENS_FILE];
    let node = lab.node(&[once.as_slice(), &options].concat()).await;
    // So that there is a record and a tenant's home.
    let volume = publish(&lab, &node, "nixExpr", &seen("\"x\"")).await;
    let volume = match volume {
        Ok(volume) => volume,
        Err(status) => panic!("{status}"),
    };
    let token = WAYS.iter().map(|way| with(way, TOKEN));
    let files = files(&lab).into_iter().map(|file| with(WAYS[1], &file));
    all_refused(&lab, &node, &token.chain(files).collect::<Vec<_>>()).await;
    // That it is there is not said either.
    for file in [TOKEN, OTHERS] {
        let text = format!("throw (if builtins.pathExists {file} then \"seen\" else \"unseen\")");
        let text = refusal(&lab, &node, "nixExpr", &text).await;
        assert!(text.ends_with(": unseen"), "{text}");
    }
    node.unpublish(&volume).await.unwrap();
    assert_eq!(traces(&lab, &node), [""; 0]);
}

#[tokio::test]
async fn a_restricted_expression_reads_nothing_of_the_node() {
    in_mode("restricted").await;
}

#[tokio::test]
async fn a_pure_expression_reads_nothing_of_the_node() {
    in_mode("pure").await;
}

/// Here only the jail is between.
#[tokio::test]
async fn an_impure_expression_reads_nothing_of_the_node() {
    in_mode("impure").await;
}

/// What an impure expression sees is all made for it.
#[tokio::test]
async fn an_impure_expression_sees_the_jail() {
    let lab = planted!();
    let node = lab.node(&["--eval-mode", "impure", "--access-tokens-file", TOKENS_FILE]).await;
    let said = async |expression: &str| {
        let expression = format!("throw (\"=\" + builtins.toJSON ({expression}))");
        let text = refusal(&lab, &node, "nixExpr", &expression).await;
        let (_, said) = text.split_once('=').unwrap_or_else(|| panic!("{text}"));
        said.to_owned()
    };
    let names =
        async |dir: &str| said(&format!("builtins.attrNames (builtins.readDir {dir})")).await;
    let tools = "filter (n: !(builtins.elem n [\"bin\" \"sbin\" \"lib\" \"lib32\" \"lib64\" \"libx32\" \"usr\"]))";
    let root = said(&format!("builtins.{tools} (builtins.attrNames (builtins.readDir /.))")).await;
    assert_eq!(root, r#"["dev","etc","home","nix","proc","run","tmp"]"#);
    assert_eq!(names("/run").await, r#"["nix-daemon.socket"]"#);
    assert_eq!(names("/nix").await, r#"["store"]"#);
    assert_eq!(names("/home").await, r#"["nix-eval"]"#);
    assert_eq!(names("/tmp").await, "[]");
    let processes = "builtins.filter (n: builtins.match \"[0-9]+\" n != null) (builtins.attrNames (builtins.readDir /proc))";
    assert_eq!(said(processes).await, r#"["1"]"#);
    // Its standard input had the access tokens.
    for file in ["/proc/self/fd/0", "/proc/1/fd/0", "/dev/fd/0"] {
        let read = format!("throw (\"=\" + builtins.readFile \"{file}\")");
        let text = refusal(&lab, &node, "nixExpr", &read).await;
        // Newer versions follow the link by themselves, to nowhere.
        let gone = text.contains("'/proc/1/fd/pipe:[") && text.contains("--eval-path");
        assert!(gone || text.ends_with(": ="), "{text}");
    }
    let variables = "map builtins.getEnv [\"HOME\" \"NIX_REMOTE\" \"KUBERNETES_SERVICE_HOST\" \"NIX_CSI_ACCESS_TOKENS_FILE\"]";
    assert_eq!(
        said(variables).await,
        r#"["/home/nix-eval","unix:///run/nix-daemon.socket","",""]"#
    );
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// Import-from-derivation is a way to run a program, and what it prints is seen.
#[tokio::test]
async fn what_an_expression_imports_is_built_in_the_sandbox_or_not_at_all() {
    let lab = planted!();
    let look = builder("look", "", &format!("($b ls -A /; $b cat {TOKEN}) > $out 2>&1; true"));
    let import = seen(&format!("(builtins.readFile ({look}))"));
    for mode in ["restricted", "impure"] {
        let options = [SANDBOXED, &["--eval-mode", mode]].concat();
        let mut node = lab.node(&options).await;
        let text = refusal(&lab, &node, "nixExpr", &import).await;
        assert!(text.ends_with("(import-from-derivation is off on this node: build that part in advance, or the operator sets --allow-import-from-derivation)"), "{text}");
        node.stop();
        let node = lab.node(&[&options[..], &["--allow-import-from-derivation"]].concat()).await;
        let none = format!("cat: can't open '{TOKEN}': No such file or directory");
        let seen = content(&lab, &node, &import).await;
        assert_eq!(
            seen.lines().collect::<Vec<_>>(),
            ["bin", "build", "dev", "etc", "nix", "proc", "tmp", &none]
        );
        assert!(!seen.contains(MARK));
    }
}
