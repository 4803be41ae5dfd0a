//! Something that answers like an sshd at each of 65,536 addresses of the node's network, and says nothing
//! else.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;

/// The first two numbers of the addresses, in none of the cluster's ranges.
pub(crate) const RANGE: &str = "10.99";

pub(crate) struct Answerer<'a> {
    cluster: &'a Cluster,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How often somebody knocked.
    asked: u64,
    /// Which hosts of the range say nothing.
    is_mute: Option<fn(u32) -> bool>,
}

impl<'a> Answerer<'a> {
    /// It ends with the runtime.
    pub(crate) fn start(cluster: &'a Cluster, runtime: &Runtime) -> Self {
        cluster.on_node(&[
            "ip",
            "route",
            "replace",
            "local",
            &format!("{RANGE}.0.0/16"),
            "dev",
            "lo",
        ]);
        let listener = on_node(cluster);
        let state = Arc::<Mutex<State>>::default();
        let known = state.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let is_mute = {
                    let mut known = known.lock().unwrap();
                    known.asked += 1;
                    let at = stream.local_addr().map(host);
                    known.is_mute.zip(at.ok()).is_some_and(|(is_mute, host)| is_mute(host))
                };
                tokio::spawn(answer(stream, is_mute));
            }
        });
        Self { cluster, state }
    }

    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().unwrap().asked
    }

    pub(crate) fn set_mute(&self, is_mute: fn(u32) -> bool) {
        self.state.lock().unwrap().is_mute = Some(is_mute);
    }
}

impl Drop for Answerer<'_> {
    fn drop(&mut self) {
        self.cluster.on_node(&[
            "ip",
            "route",
            "del",
            "local",
            &format!("{RANGE}.0.0/16"),
            "dev",
            "lo",
        ]);
    }
}

/// Who asked may be gone. What is silent holds the line, as a machine that hangs does.
async fn answer(mut stream: TcpStream, is_mute: bool) {
    let _ = if is_mute {
        stream.read_u8().await.map(drop)
    } else {
        stream.write_all(b"SSH-2.0-e2e\r\n").await
    };
}

/// The number of an address in the range.
fn host(address: SocketAddr) -> u32 {
    match address.ip() {
        IpAddr::V4(ip) => u32::from(ip) & 0xffff,
        IpAddr::V6(_) => 0,
    }
}

/// A socket stays in the network in which it was made, whoever uses it.
fn on_node(cluster: &Cluster) -> TcpListener {
    let pid = fs::read_to_string(cluster.dir().join("init.pid")).unwrap();
    let network = File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
    let bind = move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 22))).unwrap()
    };
    let listener = std::thread::spawn(bind).join().unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}
