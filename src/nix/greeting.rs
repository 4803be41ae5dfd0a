//! The first line that an sshd says: that it is one, and with which words (RFC 4253, 4.2).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

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
}
