//! A web server of the test's own, where the node and its pods find it, with what stands in for others' there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::cluster::Cluster;

/// What commands and examples name of nixpkgs.
pub(crate) const NIXPKGS: &str = "github:nixos/nixpkgs/nixos-25.11";
/// What stands in for it, and what that is served as.
pub(crate) const STAND_IN: &str = "tests/data/nixpkgs";
pub(crate) const NIXPKGS_FILE: &str = "nixpkgs.tar.gz";
/// How long somebody may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

struct File {
    bytes: Vec<u8>,
    /// What the header `Authorization` must be.
    wanted: Option<String>,
}

/// It runs as long as the tests.
pub(crate) struct Web {
    address: SocketAddr,
    files: Arc<Mutex<HashMap<String, File>>>,
}

impl Web {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let route = cluster.on_node(&["ip", "-4", "route", "show", "default"]);
        let host = route.split(' ').nth(2).unwrap();
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let files = Arc::<Mutex<HashMap<String, File>>>::default();
        let served = files.clone();
        std::thread::spawn(move || {
            // Who asked may be gone, or say nothing.
            for stream in listener.incoming().flatten() {
                let files = served.clone();
                std::thread::spawn(move || answer(stream, &files));
            }
        });
        Self { address, files }
    }

    pub(crate) fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// Serves this under a name; the URL.
    pub(crate) fn serve(&self, name: &str, bytes: Vec<u8>) -> String {
        self.put(name, File { bytes, wanted: None })
    }

    /// The same for who has the password.
    pub(crate) fn serve_to(
        &self,
        login: &str,
        password: &str,
        name: &str,
        bytes: Vec<u8>,
    ) -> String {
        let credentials = STANDARD.encode(format!("{login}:{password}"));
        self.put(name, File { bytes, wanted: Some(format!("basic {credentials}").to_lowercase()) })
    }

    /// Nobody gets it any more.
    pub(crate) fn remove(&self, name: &str) {
        self.files.lock().unwrap().remove(&format!("/{name}")).unwrap();
    }

    fn put(&self, name: &str, file: File) -> String {
        self.files.lock().unwrap().insert(format!("/{name}"), file);
        format!("http://{}/{name}", self.address)
    }

    /// The flake that stands in for nixpkgs; its reference.
    pub(crate) fn serve_nixpkgs(&self) -> String {
        self.serve(NIXPKGS_FILE, tarball(Path::new(STAND_IN)))
    }
}

fn answer(mut stream: TcpStream, files: &Mutex<HashMap<String, File>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = String::new();
    let mut lines = BufReader::new(&stream);
    while lines.read_line(&mut head)? > 2 {}
    let path = head.split(' ').nth(1).unwrap_or_default();
    let lower = head.to_lowercase();
    let given = lower.lines().find_map(|line| line.strip_prefix("authorization: "));
    let (status, body) = match files.lock().unwrap().get(path) {
        None => ("404 Not Found", Vec::new()),
        Some(file) if file.wanted.is_some() && file.wanted.as_deref() != given => {
            ("401 Unauthorized", Vec::new())
        }
        Some(file) => ("200 OK", file.bytes.clone()),
    };
    let tag = hex::encode(Sha256::digest(&body));
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"{tag}\"\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(if head.starts_with("HEAD") { &[] } else { &body })
}

/// The directory as one that a forge gives out.
pub(crate) fn tarball(dir: &Path) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(dir.parent().unwrap()).args(["-czf", "-"]);
    let output = command.arg(dir.file_name().unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
