//! A binary cache on loopback, in the test's own process: it counts what it serves, is as slow and as
//! broken as a test wants, and can be killed and started again on its port.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Lab;
use super::machine::unique;

/// Bytes that a throttled cache sends at once.
const PIECE: usize = 4096;

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Serve,
    /// 404 to everything but `nix-cache-info`.
    Empty,
    /// 500.
    Broken,
    /// Never.
    Hang,
}

/// What was asked for one path of the cache, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    pub requests: usize,
    /// Bytes of bodies that were sent, whoever may have received them.
    pub bytes: u64,
    /// Bodies that the client has read to their end.
    pub complete: usize,
}

pub struct Cache {
    dir: PathBuf,
    address: SocketAddr,
    state: Arc<State>,
    server: Option<(CancellationToken, JoinHandle<()>)>,
}

struct State {
    dir: PathBuf,
    settings: Mutex<(Mode, Option<usize>)>,
    /// The value of the header that lets in, if not everybody is.
    authorization: Mutex<Option<String>>,
    served: Mutex<BTreeMap<String, Served>>,
}

impl Lab {
    /// A cache of nothing that runs.
    pub async fn cache(&self) -> Cache {
        let dir = self.path(&format!("cache-{}", unique()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 30\n").unwrap();
        let settings = Mutex::new((Mode::Serve, None));
        let state = State {
            dir: dir.clone(),
            settings,
            authorization: Mutex::default(),
            served: Mutex::default(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut cache = Cache { dir, address, state: Arc::new(state), server: None };
        cache.start().await;
        cache
    }
}

impl Cache {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The setting of a node that uses it, for `--nix-option`.
    pub fn substituters(&self) -> String {
        format!("substituters={}", self.url())
    }

    /// Copies the closure of `root` into it, unsigned and not compressed.
    pub fn upload(&self, lab: &Lab, root: &str) {
        let to = format!("file://{}?compression=none", self.dir.display());
        let features = ["--extra-experimental-features", "nix-command"];
        lab.ok("nix", &[&features[..], &["copy", "--to", &to, root]].concat());
    }

    /// Any other file.
    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    pub fn set(&self, mode: Mode) {
        self.state.settings.lock().unwrap().0 = mode;
    }

    /// From now on it lets in who has this password, and says so to others.
    pub fn lock(&self, user: &str, password: &str) {
        let basic = STANDARD.encode(format!("{user}:{password}"));
        *self.state.authorization.lock().unwrap() = Some(format!("Basic {basic}"));
    }

    /// Bytes a second of each connection.
    pub fn throttle(&self, rate: Option<usize>) {
        self.state.settings.lock().unwrap().1 = rate;
    }

    /// Closes the port and resets every connection; what was served stays counted.
    pub async fn kill(&mut self) {
        let (stop, server) = self.server.take().unwrap();
        stop.cancel();
        server.await.unwrap();
    }

    /// Serves again, on the port that it had.
    pub async fn start(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(accept(listener, self.state.clone(), stop.clone()));
        self.server = Some((stop, server));
    }

    pub fn requests(&self) -> usize {
        self.state.served.lock().unwrap().values().map(|served| served.requests).sum()
    }

    pub fn narinfos(&self) -> BTreeMap<String, Served> {
        self.served(|path| Path::new(path).extension().is_some_and(|e| e == "narinfo"))
    }

    pub fn nars(&self) -> BTreeMap<String, Served> {
        self.served(|path| path.starts_with("nar/"))
    }

    /// Where to put something else to serve.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn served_of(&self, name: &str) -> Served {
        self.served(|path| path == name).remove(name).unwrap_or_default()
    }

    /// The size of something in it.
    pub fn size(&self, path: &str) -> u64 {
        fs::metadata(self.dir.join(path)).unwrap().len()
    }

    fn served(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Served> {
        let served = self.state.served.lock().unwrap();
        served.iter().filter(|(path, _)| wanted(path)).map(|(p, s)| (p.clone(), *s)).collect()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.server {
            stop.cancel();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (mut stream, _) = accepted.unwrap();
        let (state, stop) = (state.clone(), stop.clone());
        connections.spawn(async move {
            if stop.run_until_cancelled(state.answer(&mut stream)).await.is_none() {
                // A close is then a reset, and what was not read yet is lost.
                let linger = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
            }
        });
    }
    drop(listener);
    connections.join_all().await;
}

impl State {
    /// One request a connection: a client that goes away ends only this.
    async fn answer(&self, stream: &mut TcpStream) {
        let Ok(Some((is_head, path, authorization))) = request(stream).await else { return };
        self.count(&path, |served| served.requests += 1);
        let mode = self.settings.lock().unwrap().0;
        let asked = self.authorization.lock().unwrap().clone();
        let found = match mode {
            _ if asked.is_some() && asked != authorization => {
                Err("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"lab\"")
            }
            Mode::Hang => return std::future::pending().await,
            Mode::Broken => Err("500 Internal Server Error"),
            Mode::Empty if path != "nix-cache-info" => Err("404 Not Found"),
            Mode::Empty | Mode::Serve => {
                // Nix before 2.9 asks for a locked tarball with the lock in its query.
                let file = path.split('?').next().unwrap_or_default();
                fs::read(self.dir.join(file)).map_err(|_| "404 Not Found")
            }
        };
        let (status, body) = found.map_or_else(|status| (status, vec![]), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let body = if is_head { vec![] } else { body };
        if self.send(stream, &path, head.as_bytes(), &body).await.is_ok() && status == "200 OK" {
            self.count(&path, |served| served.complete += usize::from(!is_head));
        }
    }

    /// `Ok` when the client has read everything and hung up.
    async fn send(
        &self,
        stream: &mut TcpStream,
        path: &str,
        head: &[u8],
        body: &[u8],
    ) -> io::Result<()> {
        stream.write_all(head).await?;
        for piece in body.chunks(PIECE) {
            let rate = self.settings.lock().unwrap().1;
            if let Some(rate) = rate {
                let pause = Duration::from_secs(1) * u32::try_from(piece.len()).unwrap();
                let due = tokio::time::Instant::now() + pause / u32::try_from(rate).unwrap();
                tokio::time::sleep_until(due).await;
            }
            stream.write_all(piece).await?;
            self.count(path, |served| served.bytes += piece.len() as u64);
        }
        stream.shutdown().await?;
        match stream.read(&mut [0; 64]).await? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn count(&self, path: &str, change: impl FnOnce(&mut Served)) {
        change(self.served.lock().unwrap().entry(path.to_owned()).or_default());
    }
}

/// Whether it is a HEAD, the path without its slash, and who asks; `None` of a client that said nothing.
async fn request(stream: &mut TcpStream) -> io::Result<Option<(bool, String, Option<String>)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let mut words = head.split(' ');
    let is_head = words.next() == Some("HEAD");
    let named = head.lines().filter_map(|line| line.split_once(": "));
    let named = named.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let who = named.map(|(_, value)| value.to_owned()).next_back();
    let path = words.next().and_then(|path| path.strip_prefix('/'));
    Ok(path.map(|path| (is_head, path.to_owned(), who)))
}
