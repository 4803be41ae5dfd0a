//! A node that refuses to start says why, in one line.

use crate::lab;
use crate::program::run_in;

#[tokio::test]
async fn explore() {
    let lab = lab!();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap().to_string();
    let d = lab.dir.path().to_str().unwrap().to_owned();
    let run = format!("{d}/run");
    let csi = format!("{d}/run/csi.sock");
    let adm = format!("{d}/run/admin.sock");
    let base = [
        "node",
        "--run-dir",
        &run,
        "--endpoint",
        &csi,
        "--admin-endpoint",
        &adm,
        "--http",
        "127.0.0.1:0",
    ];
    let with = |name: &str, replaced: &[(&str, &str)], extra: &[&str]| {
        let mut args: Vec<&str> = base.to_vec();
        for (k, v) in replaced {
            let i = args.iter().position(|a| a == k).unwrap();
            args[i + 1] = v;
        }
        args.extend(extra);
        let mut command = lab.command("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_nix-csi")]).args(&args).env_remove("X");
        println!("#### {name} {:?}", crate::program::said(&lab, &command.output().unwrap()));
    };
    with("endpoint", &[("--endpoint", "tcp://localhost:1")], &[]);
    with("endpoint long", &[("--endpoint", &format!("/{}", "x".repeat(120)))], &[]);
    with("endpoint dir", &[("--endpoint", &d)], &[]);
    with("endpoint slash", &[("--endpoint", "/proc/x/y.sock")], &[]);
    with("nix", &[], &["--nix", "/no/nix"]);
    with("nix2", &[], &["--nix", "nonix"]);
    with("nix3", &[], &["--nix", "/bin/true"]);
    with("http", &[("--http", &port)], &[]);
    with("http", &[("--http", "localhost")], &[]);
    with("comma", &[], &["--state-dir", &format!("{d}/a,b:c")]);
    with("relative", &[], &["--state-dir", "rel"]);
    with("id", &[], &["--node-id", ""]);
    with("id", &[], &["--node-id", &"x".repeat(257)]);
    with("opt", &[], &["--nix-option", "sandbox"]);
    with("opt", &[], &["--nix-option", "nonsense-setting=1"]);
    with("opt", &[], &["--nix-option", "cores=many"]);
    with("log", &[], &["--log", "nix_csi=loud"]);
    with("root", &[], &["--target-root", "/nowhere"]);
    with("slots", &[], &["--build-slots", "0"]);
    with("hold", &[], &["--hold", "soon"]);
    with("crash", &[], &["--crash-at", "nowhere"]);
    with("run", &[("--run-dir", "/proc/x")], &[]);
    with("state", &[], &["--state-dir", "/proc/x"]);
    with("lent", &[], &["--nix-daemon-socket", "/no/socket"]);
    let _ = run_in;
}
