//! A web server of the test's own, where the node and its pods find it, with what stands in for others' there.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::Cluster;

/// What commands and examples name of nixpkgs.
pub(crate) const NIXPKGS: &str = "github:nixos/nixpkgs/nixos-25.11";

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
            for stream in listener.incoming() {
                // Who asked may be gone.
                let _ = answer(stream.unwrap(), &served);
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

    fn put(&self, name: &str, file: File) -> String {
        self.files.lock().unwrap().insert(format!("/{name}"), file);
        format!("http://{}/{name}", self.address)
    }

    /// The flake that stands in for nixpkgs; its reference.
    pub(crate) fn serve_nixpkgs(&self) -> String {
        self.serve("nixpkgs.tar.gz", tarball(Path::new("tests/data/nixpkgs")))
    }
}

fn answer(mut stream: TcpStream, files: &Mutex<HashMap<String, File>>) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let length = stream.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let lower = request.to_lowercase();
    let given = lower.lines().find_map(|line| line.strip_prefix("authorization: "));
    let files = files.lock().unwrap();
    let (status, body): (_, &[u8]) = match files.get(path) {
        None => ("404 Not Found", &[]),
        Some(file) if file.wanted.is_some() && file.wanted.as_deref() != given => {
            ("401 Unauthorized", &[])
        }
        Some(file) => ("200 OK", &file.bytes),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e2e\"\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(if request.starts_with("HEAD") { &[] } else { body })
}

/// The directory as one that a forge gives out.
pub(crate) fn tarball(dir: &Path) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(dir.parent().unwrap()).args(["-czf", "-"]);
    let output = command.arg(dir.file_name().unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
