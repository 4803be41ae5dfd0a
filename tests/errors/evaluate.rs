//! Sources that don't evaluate, or whose flake is not there.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::refusal::{Case, check};

const FLAKE: &str = r#"{ outputs = _: { x = throw "a flake's own words"; n = 1; }; }"#;

fn expressions() -> Vec<Case> {
    let case = |text: &str, expected: &str| {
        Case::new(
            "nixExpr",
            text,
            Code::InvalidArgument,
            &format!("evaluate failed after N s: {expected}"),
        )
    };
    let hint = "it must evaluate to one derivation, or to a function whose arguments have defaults";
    let no_channels = "a node has no channels: name the source in a flake, and give its flakeRef";
    let no_channel = "file 'nixpkgs' was not found in the Nix search path";
    let long = "ü".repeat(5000);
    vec![
        case("foo", "undefined variable 'foo', at line 1 column 1"),
        case("{\n  a = 1;\n  b = ;\n}", "syntax error, unexpected ';', at line 3 column 7"),
        case(r#"throw "a\nb""#, "a"),
        case(&format!("throw \"{long}\""), &format!("{}…", "ü".repeat(200))),
        // Longer than a kept line of Nix's log.
        case(&format!("throw (toString (map (_: \"{long}\") (builtins.genList (x: x) 20)))"), &format!("{}…", "ü".repeat(200))),
        case("let x = x; in x", "infinite recursion encountered, at line 1 column 9"),
        case("let f = x: f (x + 1); in f 0", "stack overflow; max-call-depth exceeded, at line 1 column 12")
            .on("2.8", "evaluate failed after N s: stack overflow (possible infinite recursion)"),
        case(r#"abort "enough""#, "evaluation aborted with the following error message: 'enough'"),
        case("1", &format!("expression does not evaluate to a derivation (or a set or list of those) ({hint})")),
        case("{ pkgs }: pkgs", "cannot evaluate a function that has an argument without a value ('pkgs'), at line 1 column 3 (give every argument a default)"),
        case("{ a.b.c = 1; }.a.b.d", "attribute 'd' missing, at line 1 column 1"),
        case("import <nixpkgs> {}", &format!("{no_channel} ({no_channels})"))
            .on("2.8", &format!("evaluate failed after N s: {no_channel}, at line 1 column 8 ({no_channels})")),
        case("builtins.readFile /etc/passwd", "access to absolute path '/etc/passwd' is forbidden in restricted mode (an expression may read the store alone: --eval-mode is restricted on this node)")
            .on("2.26", "evaluate failed after N s: access to absolute path '/etc' is forbidden in restricted mode (an expression may read the store alone: --eval-mode is restricted on this node)"),
        case(r#"builtins.fetchTarball "http://127.0.0.1:1/x.tar.gz""#, "access to URI 'http://127.0.0.1:1/x.tar.gz' is forbidden in restricted mode (the operator lists what an expression may fetch with --allowed-uri; a flake may fetch)"),
        // A request's text is never an option.
        case("--help", "undefined variable 'help', at line 1 column 3"),
    ]
}

/// `git`: whether there is one.
fn flakes(dir: &str, git: bool) -> Vec<Case> {
    let case =
        |text: &str, expected: &str| Case::new("flakeRef", text, Code::InvalidArgument, expected);
    let provides = "(nix flake show lists what it provides)";
    let no_git = "fetch failed after N s: git is not installed on this node";
    let no_tree = "fetch failed after N s: git: '/nonexistent' does not appear to be a git repository (an evaluation sees the store alone; the operator shows it a directory with --eval-path)";
    let unreachable = "fetch failed for now after N s: git: unable to access 'https://127.0.0.1:1/x/': Failed to connect to 127.0.0.1 port 1 after N ms: Couldn't connect to server";
    // With the words of a newer curl.
    let newer = unreachable.replace("Couldn't", "Could not");
    let (newer_code, newer) =
        if git { (Code::Unavailable, newer.as_str()) } else { (Code::InvalidArgument, no_git) };
    vec![
        case("path:/nonexistent#x", "fetch failed after N s: path '//nonexistent' does not exist (an evaluation sees the store alone; the operator shows it a directory with --eval-path)")
            .on("2.8", "fetch failed after N s: getting status of '/nonexistent': No such file or directory (an evaluation sees the store alone; the operator shows it a directory with --eval-path)"),
        case("git+file:///nonexistent#x", "fetch failed after N s: Git repository \"/nonexistent\" does not exist. (an evaluation sees the store alone; the operator shows it a directory with --eval-path)")
            .on("2.8", no_tree)
            .on("2.26", if git { no_tree } else { no_git }),
        case(&format!("path:{dir}#nope"), &format!("evaluate failed after N s: flake 'path:{dir}?LOCK' does not provide attribute 'packages.SYSTEM.nope', 'legacyPackages.SYSTEM.nope' or 'nope' {provides}")),
        case(&format!("path:{dir}"), &format!("evaluate failed after N s: flake 'path:{dir}?LOCK' does not provide attribute 'packages.SYSTEM.default' or 'defaultPackage.SYSTEM' {provides}")),
        case(&format!("path:{dir}#x"), "evaluate failed after N s: a flake's own words"),
        case(&format!("path:{dir}#n"), "evaluate failed after N s: expected flake output attribute 'n' to be a derivation or path but found an integer: 1")
            .on("2.8", "evaluate failed after N s: flake output attribute 'n' is not a derivation"),
        case("--help", "fetch failed after N s: getting status of \"/nix-csi/home/--help\": No such file or directory (an evaluation sees the store alone; the operator shows it a directory with --eval-path)")
            .on("2.8", "fetch failed after N s: getting status of '/nix-csi/home/--help': No such file or directory (an evaluation sees the store alone; the operator shows it a directory with --eval-path)")
            .on("2.26", "fetch failed after N s: getting status of '/nix-csi/home/--help': No such file or directory (an evaluation sees the store alone; the operator shows it a directory with --eval-path)"),
        // Nobody answers: worth another try.
        Case::new("flakeRef", "git+https://127.0.0.1:1/x#y", newer_code, newer)
            .with_code("2.8", Code::Unavailable, unreachable),
        Case::new("flakeRef", "https://127.0.0.1:1/x.tar.gz#y", Code::Unavailable, "fetch failed for now after N s: unable to download 'https://127.0.0.1:1/x.tar.gz': Could not connect to server (7) Failed to connect to 127.0.0.1:1 after N ms: Could not connect to server")
            .on("2.26", "fetch failed for now after N s: unable to download 'https://127.0.0.1:1/x.tar.gz': Could not connect to server (7) Failed to connect to 127.0.0.1 port 1 after N ms: Could not connect to server")
        .on("2.8", "fetch failed for now after N s: unable to download 'https://127.0.0.1:1/x.tar.gz': Couldn't connect to server (7)"),
    ]
}

#[tokio::test]
async fn an_expression_that_does_not_evaluate_says_where() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    check(&lab, &node, &expressions()).await;
}

#[tokio::test]
async fn a_flake_that_is_not_there_says_so() {
    let lab = lab!();
    let flake = lab.path("flake");
    std::fs::create_dir(&flake).unwrap();
    let visible = flake.to_str().unwrap();
    // Directories that hold what the jail itself needs elsewhere are shown as well.
    let options = [
        ["--nix-option", "download-attempts=1"],
        ["--eval-path", visible],
        ["--eval-path", "/home:/run:/etc"],
    ]
    .concat();
    let node = lab.node(&options).await;
    std::fs::write(flake.join("flake.nix"), FLAKE).unwrap();
    let git = lab.run("git", &["--version"]).status.success();
    check(&lab, &node, &flakes(flake.to_str().unwrap(), git)).await;
}
