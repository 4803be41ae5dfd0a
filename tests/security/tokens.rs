//! The access tokens reach whom they are for, and nobody else.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::lab::{Lab, until, wait_for};
use crate::planted;
use crate::world::{FORGE, MARK, TOKENS_FILE, of_pod, processes, traces};

/// A forge on loopback that notes what it is asked, and answers when it is let.
struct Forge(Child);

impl Forge {
    fn start(lab: &Lab) -> Option<Self> {
        let dir = lab.path("forge");
        fs::create_dir(&dir).unwrap();
        let [key, cert] = ["key", "cert"].map(|name| dir.join(name));
        let name = format!("subjectAltName=IP:{FORGE}");
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=forge",
                "-addext",
                &name,
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .stderr(Stdio::null())
            .status()
            .ok()?;
        assert!(made.success());
        let log = fs::File::create(dir.join("log")).unwrap();
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-naccept", "1", "-accept", &format!("{FORGE}:443")])
            .arg("-key")
            .arg(&key)
            .arg("-cert")
            .arg(&cert)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It takes one connection, so that none may try; the kernel's list has it as 7F.7.7.7:443, listening.
        let listens = || {
            let all = fs::read_to_string("/proc/net/tcp").unwrap();
            all.lines().any(|line| line.contains(" 0707077F:01BB 00000000:0000 0A "))
        };
        wait_for("the forge", listens);
        let certificates = "/etc/ssl/certs/ca-certificates.crt";
        let script = "mkdir -p ${1%/*}; [ -e $1 ] || : > $1; mount --bind $0 $1";
        lab.ok("sh", &["-euc", script, cert.to_str().unwrap(), certificates]);
        Some(Self(server))
    }

    fn answer(&mut self, text: &str) {
        let mut stdin = self.0.stdin.take().unwrap();
        let length = text.len();
        write!(
            stdin,
            "HTTP/1.1 401 Not {MARK}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
        )
        .unwrap();
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_is_sent_to_its_host_and_seen_nowhere() {
    let lab = planted!();
    let Some(mut forge) = Forge::start(&lab) else {
        return crate::lab::skipped(
            "an_access_token_is_sent_to_its_host_and_seen_nowhere",
            "no openssl",
        );
    };
    let node =
        lab.node(&["--access-tokens-file", TOKENS_FILE, "--log", "warn,nix_csi=trace"]).await;
    let volume =
        of_pod(lab.volume("v", &[("flakeRef", &format!("gitlab:o/r?host={FORGE}#x"))]), "web");
    let asked = async {
        let log = lab.path("forge/log");
        until("the request", async || fs::read_to_string(&log).unwrap().contains("\r\n\r\n")).await;
        let request = fs::read_to_string(&log).unwrap();
        let header = format!("\r\nprivate-token: {MARK}\r\n");
        assert!(request.to_lowercase().contains(&header), "{request}");
        // While the evaluator and its guard run.
        let (count, text) = processes(&lab);
        assert!(count >= 4 && text.contains("metadata") && !text.contains(MARK), "{text}");
        forge.answer(&format!("bad token {MARK}, said https://{MARK}@{FORGE}/"));
    };
    let (published, ()) = tokio::join!(node.publish(&volume), asked);
    let status = published.unwrap_err();
    assert!(!status.message().contains(MARK), "{status}");
    assert!(status.message().contains("HTTP error 401 ("), "{status}");
    assert_eq!(traces(&lab, &node), [""; 0]);
}
