//! A node in a machine, and the calls that a kubelet makes to it: a fresh connection each.

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};

use nix_csi::grpc::client::{self, Code, Status};
use nix_csi::grpc::proto::admin::{StatusRequest, StatusResponse};
use nix_csi::grpc::proto::csi::volume_capability::access_mode::Mode;
use nix_csi::grpc::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use nix_csi::grpc::proto::csi::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ProbeRequest,
    VolumeCapability, VolumeUsage,
};

use super::Lab;
use super::machine::{http_get, node_binary, pid_inside, signal_inside, unique, wait_for};

/// A running node. Dropping it kills it, as `kill -9` would; its machine stays.
pub struct Node {
    child: Child,
    pub csi: PathBuf,
    pub admin: PathBuf,
    pub http: String,
    pub log: PathBuf,
    /// Pid in whose network it listens.
    network: Option<u32>,
}

/// A volume to publish.
#[derive(Clone)]
pub struct Volume {
    pub id: String,
    pub target: PathBuf,
    pub attributes: HashMap<String, String>,
    pub readonly: bool,
    pub mode: Mode,
}

pub fn attrs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// An address of the loopback for a process that will listen there in a moment. It is none of those that the kernel
/// gives out, so that only another run of the tests could come in between.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id() * 64 + u32::from(number)) % u32::from(COUNT);
        let address = format!("127.0.0.1:{}", FIRST + u16::try_from(offset).unwrap());
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

impl Lab {
    /// A node that is ready.
    pub async fn node(&self, extra: &[&str]) -> Node {
        let node = self.starting_node(extra);
        node.ready().await;
        node
    }

    /// The same as a container's runtime starts it: the first process of a pid namespace, in a mount namespace
    /// of its own. What it mounts is seen in there only.
    pub async fn contained_node(&self, extra: &[&str]) -> Node {
        let mut command = self.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(node_binary());
        self.node_by(command, extra).await
    }

    /// A node that is ready, started by this command.
    pub async fn node_by(&self, command: Command, extra: &[&str]) -> Node {
        let node = self.start_node(command, extra);
        node.ready().await;
        node
    }

    /// A node that was just started. Sandboxes are off: the tests' builders use the machine's tools.
    pub fn starting_node(&self, extra: &[&str]) -> Node {
        self.start_node(self.command(node_binary()), extra)
    }

    fn start_node(&self, mut command: Command, extra: &[&str]) -> Node {
        let run = self.path("run");
        let http = free_address();
        let log = self.path("node.log");
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log).unwrap();
        let (csi, admin) = (run.join("csi.sock"), run.join("admin.sock"));
        let child = command
            .arg("node")
            .args([Path::new("--run-dir"), &run, Path::new("--endpoint"), &csi])
            .args([Path::new("--admin-endpoint"), &admin])
            .args(["--http", &http, "--node-id", "lab"])
            .args(["--nix-option", "sandbox=false", "--nix-option", "substituters="])
            .args(extra)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Node { child, csi, admin, http, log, network: self.network() }
    }

    /// A read-only volume of a store path.
    pub fn volume(&self, name: &str, attributes: &[(&str, &str)]) -> Volume {
        Volume {
            id: format!("csi-{name}-{}", unique()),
            target: self.target(name),
            attributes: attrs(attributes),
            readonly: true,
            mode: Mode::SingleNodeWriter,
        }
    }
}

impl Volume {
    pub fn writable(mut self) -> Self {
        self.readonly = false;
        self
    }

    pub fn request(&self) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: self.target.to_str().unwrap().to_owned(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume::default())),
                access_mode: Some(AccessMode { mode: self.mode.into() }),
            }),
            readonly: self.readonly,
            volume_context: self.attributes.clone(),
            ..NodePublishVolumeRequest::default()
        }
    }
}

impl Node {
    /// It has a minute and a half: the disk of a busy machine can stand still for a good part of one.
    pub async fn ready(&self) {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(25));
        for _ in 0..3600 {
            if self.probe().await == Ok(true) {
                return;
            }
            again.tick().await;
        }
        panic!("the node is not ready:\n{}", self.log());
    }

    pub async fn probe(&self) -> Result<bool, String> {
        let mut identity = client::identity(&self.csi).await.map_err(|e| e.to_string())?;
        let answer = identity.probe(ProbeRequest {}).await.map_err(|e| e.message().to_owned())?;
        Ok(answer.into_inner().ready.unwrap())
    }

    pub async fn publish(&self, volume: &Volume) -> Result<(), Status> {
        self.publish_request(volume.request()).await
    }

    pub async fn publish_request(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        let mut node = client::node(&self.csi)
            .await
            .map_err(|e| Status::new(Code::Unavailable, e.to_string()))?;
        node.node_publish_volume(request).await.map(drop)
    }

    pub async fn unpublish(&self, volume: &Volume) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.to_str().unwrap().to_owned(),
        };
        let mut node = client::node(&self.csi)
            .await
            .map_err(|e| Status::new(Code::Unavailable, e.to_string()))?;
        node.node_unpublish_volume(request).await.map(drop)
    }

    pub async fn stats(&self, volume: &Volume) -> Result<Vec<VolumeUsage>, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume.id.clone(),
            volume_path: volume.target.to_str().unwrap().to_owned(),
            ..NodeGetVolumeStatsRequest::default()
        };
        let mut node = client::node(&self.csi).await.unwrap();
        Ok(node.node_get_volume_stats(request).await?.into_inner().usage)
    }

    pub async fn status(&self) -> StatusResponse {
        let mut admin = client::admin(&self.admin).await.unwrap();
        admin.status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Where it serves HTTP: who has that network, and the address there.
    pub fn serves(&self) -> (Option<u32>, String) {
        (self.network, self.http.clone())
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        self.get("/metrics")
    }

    /// One sample, by its name with its labels; nothing if it isn't there.
    pub fn metric<T: FromStr<Err: Debug>>(&self, name: &str) -> Option<T> {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// An HTTP answer, head and all.
    pub fn get(&self, path: &str) -> String {
        http_get(self.network, &self.http, path).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// `kill -9`, and the end of it.
    pub fn kill(mut self) {
        self.end();
    }

    /// `kill -9`, while others still wait for its answers.
    pub fn shoot(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// SIGTERM, and no wait.
    pub fn ask_to_stop(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for a node that ends by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        signal_inside(&self.child, signal);
    }

    /// As this machine sees it.
    pub fn pid(&self) -> i32 {
        pid_inside(&self.child)
    }

    fn end(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("log of the node:\n{}", self.log());
        }
    }
}

/// Waits for something that a node does by itself.
pub fn eventually(what: &str, done: impl FnMut() -> bool) {
    wait_for(what, done);
}
