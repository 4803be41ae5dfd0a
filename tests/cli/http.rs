//! `/healthz`, `/readyz` and `/log-filter`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::lab;
use crate::lab::{Node, eventually};

/// Status and body of an answer.
pub fn http(node: &Node, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&node.http).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub fn get(node: &Node, path: &str) -> (u16, String) {
    http(node, "GET", path, "")
}

#[tokio::test]
async fn health_is_asked_through_the_sockets_path() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    assert_eq!(get(&node, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&node, "/readyz"), (200, "ready\n".to_owned()));
    fs::remove_file(&node.csi).unwrap();
    let socket = node.csi.display();
    let gone = format!(
        "can't reach nix-csi at {socket}: there is no such socket: start `nix-csi node`, or name \
         its socket\n"
    );
    assert_eq!(get(&node, "/healthz"), (503, gone.clone()));
    assert_eq!(get(&node, "/readyz"), (503, gone));
}

#[tokio::test]
async fn readiness_follows_the_daemon() {
    let lab = lab!();
    // A daemon that never answers, and ends.
    let nix = lab.ok("sh", &["-c", "command -v nix"]);
    let broken = lab.path("broken");
    fs::create_dir(&broken).unwrap();
    std::os::unix::fs::symlink(&nix, broken.join("nix")).unwrap();
    let daemon = "#!/bin/sh\necho no daemon today >&2\nexit 1\n";
    for (name, text) in [
        ("nix-daemon", daemon.to_owned()),
        ("nix-store", format!("#!/bin/sh\nexec {nix}-store \"$@\"\n")),
    ] {
        fs::write(broken.join(name), text).unwrap();
        lab.ok("chmod", &["755", broken.join(name).to_str().unwrap()]);
    }
    let node = lab.starting_node(&["--nix", broken.join("nix").to_str().unwrap()]);
    let mut seen = Vec::new();
    eventually("a node that is not ready", || {
        let up = TcpStream::connect(&node.http).is_ok();
        if up {
            seen.push(get(&node, "/readyz"));
        }
        seen.len() > 3
    });
    assert!(seen.iter().all(|(code, text)| *code == 503 && !text.is_empty()), "{seen:?}");
    eventually("the daemon's own words", || node.log().contains("no daemon today"));
    let why = "nix-daemon: nix-daemon ended unexpectedly (exit status: 1) while it started\n";
    eventually("its end as the reason", || get(&node, "/readyz").1 == why);
}

#[tokio::test]
async fn the_log_filter_can_be_changed() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    assert_eq!(get(&node, "/log-filter"), (200, "kube_client=off,info\n".to_owned()));
    let debug = "nix_csi=debug,warn\n";
    assert_eq!(http(&node, "PUT", "/log-filter", debug), (200, debug.to_owned()));
    assert_eq!(get(&node, "/log-filter").1, debug);
    let wrong = "\"nix_csi=loud\": error parsing level filter: expected one of \"off\", \"error\", \
                 \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5: write for example \
                 info,nix_csi=debug\n";
    assert_eq!(http(&node, "PUT", "/log-filter", "nix_csi=loud"), (400, wrong.to_owned()));
    assert_eq!(get(&node, "/log-filter").1, debug);
    let before = node.log().len();
    let volume = lab.volume("v", &[("storePath", "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x")]);
    node.publish(&volume).await.unwrap_err();
    assert!(node.log()[before..].contains("DEBUG"), "{}", node.log());
}
