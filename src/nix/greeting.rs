//! The first line that an sshd says: that it is one, and with which words (RFC 4253, 4.2).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use super::NixError;
use super::child::patiently;
use crate::model::Announcement;

/// Bytes that may come before it, with itself: lines of greeting to people.
const MAX: usize = 8 << 10;

/// Reads until the line that begins with `SSH-`; without its end.
pub(super) async fn read(mut stream: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut seen = Vec::new();
    while seen.len() < MAX {
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::Error::other("it closed the connection without an SSH banner"));
        }
        let mut lines = seen.split_inclusive(|c| *c == b'\n');
        let is_it = |line: &&[u8]| line.starts_with(b"SSH-") && line.ends_with(b"\n");
        if let Some(line) = lines.find(is_it) {
            return Ok(String::from_utf8_lossy(line).trim_end().to_owned());
        }
    }
    Err(io::Error::other("what answers is no sshd"))
}

/// Waits until what listens there says that it is an sshd (RFC 4253, 4.2).
pub(super) async fn is_sshd(address: SocketAddr, limit: Duration) -> Result<(), NixError> {
    let greeted = patiently(limit, || async { greeting_of(address).await.map(drop) }).await;
    greeted.map_err(|error| NixError::Command {
        what: "starting sshd".to_owned(),
        detail: format!("no sshd answers at {address}: {error}"),
    })
}

/// What the sshd at `HOST:PORT` says of itself as a builder; `None`: none answers within `limit`.
pub async fn answers(place: &str, limit: Duration) -> Option<Announcement> {
    let asked = async {
        let mut found = tokio::net::lookup_host(place).await?;
        greeting_of(found.next().ok_or(io::ErrorKind::NotFound)?).await
    };
    let greeting = tokio::time::timeout(limit, asked).await.ok()?.ok()?;
    Some(Announcement::parse(&greeting))
}

async fn greeting_of(address: SocketAddr) -> io::Result<String> {
    read(TcpStream::connect(address).await?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_line_is_found_among_others() {
        let read = async |text: &'static [u8]| read(text).await.map_err(|e| e.to_string());
        assert_eq!(read(b"SSH-2.0-x y\r\nmore").await.unwrap(), "SSH-2.0-x y");
        assert_eq!(read(b"welcome\r\nSSH-2.0-x\n").await.unwrap(), "SSH-2.0-x");
        let closed = "it closed the connection without an SSH banner";
        for text in [&b""[..], b"SSH-2.0-x", b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            assert_eq!(read(text).await.unwrap_err(), closed);
        }
        let long = Box::leak(vec![b'a'; 10_000].into_boxed_slice());
        assert_eq!(read(long).await.unwrap_err(), "what answers is no sshd");
    }

    #[tokio::test]
    async fn only_an_sshd_is_taken_for_one() {
        use tokio::io::AsyncWriteExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for greeting in [&b"HTTP/1.1 400"[..], b"", b"SSH-2.0-x\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(greeting).await.unwrap();
            }
        });
        is_sshd(address, Duration::from_secs(20)).await.unwrap();
        server.await.unwrap();
        let error = is_sshd(address, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
