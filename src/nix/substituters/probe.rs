//! Asks a substituter's place for a sign of life.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_ok;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;

use super::target::Target;
use crate::nix::greeting;

/// Of one name. More than a few are a load balancer's, and any of them is a sign.
const MAX_ADDRESSES: usize = 8;

/// An error says why the place is not worth asking. `turn` is the place's own.
pub(super) async fn probe(
    target: &Target,
    limit: Duration,
    turn: &Arc<Semaphore>,
) -> Result<(), String> {
    let answer = async {
        match target {
            Target::Unknown => Ok(()),
            Target::Directory(path) => directory(path, turn).await,
            Target::Tcp { host, port } => connected(host, *port, |_| async { Ok(()) }).await,
            Target::Http { host, port, path } => {
                let name = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
                );
                connected(host, *port, |stream| answered(stream, request.clone())).await
            }
            Target::Ssh { host, port } => connected(host, *port, banner).await,
        }
    };
    let in_time = tokio::time::timeout(limit, answer).await;
    in_time
        .unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(limit))))
}

/// A look at a dead network file system never ends, and holds a thread: so one at a time.
async fn directory(path: &Path, turn: &Arc<Semaphore>) -> Result<(), String> {
    let Ok(turn) = turn.clone().acquire_owned().await else {
        return Ok(()); // it is never closed
    };
    let owned = path.to_owned();
    let look = move || {
        let _turn = turn;
        std::fs::metadata(owned)
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(found)) if found.is_dir() => Ok(()),
        Ok(Ok(_)) => Err(format!("{} is not a directory", path.display())),
        Ok(Err(e)) => Err(format!("can't look at {}: {e}", path.display())),
        Err(e) => Err(format!("can't look at {}: {e}", path.display())),
    }
}

/// Tries all addresses at once: the first may be one that nothing answers from.
async fn connected<F>(host: &str, port: u16, and: impl Fn(TcpStream) -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let found = lookup_host((host, port)).await;
    let found: Vec<_> =
        found.map_err(|e| format!("can't resolve {host}: {e}"))?.take(MAX_ADDRESSES).collect();
    if found.is_empty() {
        return Err(format!("{host} has no address"));
    }
    let and = &and;
    let attempt = |address: SocketAddr| {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await;
            and(stream.map_err(|e| format!("can't connect to {address}: {e}"))?).await
        })
    };
    select_ok(found.into_iter().map(attempt)).await.map(|((), _)| ())
}

/// A server that accepts and says nothing would hold a command up for minutes.
async fn answered(mut stream: TcpStream, request: String) -> Result<(), String> {
    /// `HTTP/1.1 200`
    const STATUS: usize = 12;
    let io = |e: std::io::Error| format!("no answer to a request: {e}");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut seen = Vec::new();
    while seen.len() < STATUS {
        if stream.read_buf(&mut seen).await.map_err(io)? == 0 {
            return Err("it closed the connection without an answer".to_owned());
        }
    }
    let status = String::from_utf8_lossy(&seen[..STATUS]).into_owned();
    match status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)) {
        Some(code) if code.starts_with('5') => Err(format!("it answers with HTTP status {code}")),
        Some(_) => Ok(()),
        None => Err("what answers is no web server".to_owned()),
    }
}

/// An sshd that is stopped, or a load balancer without one, accepts and says nothing.
async fn banner(stream: TcpStream) -> Result<(), String> {
    greeting::read(stream).await.map(drop).map_err(|e| e.to_string())
}
