//! Unix sockets: the endpoint's syntax, and binding without a moment of loose permissions.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::UnixListener;

/// `sockaddr_un` holds 107 bytes and a NUL (unix(7)).
const MAX_PATH: usize = 107;

/// `unix:///path` or `unix:/path` or `/path`, as CSI drivers accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    #[error("{value:?} is not a Unix socket: write unix:///absolute/path.sock")]
    NotUnix { value: String },
    #[error("{value:?} has {len} bytes, more than the {MAX_PATH} of a socket's path")]
    TooLong { value: String, len: usize },
}

impl Endpoint {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let path =
            value.strip_prefix("unix://").or_else(|| value.strip_prefix("unix:")).unwrap_or(value);
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(InvalidEndpoint::NotUnix { value: value.to_owned() });
        }
        if path.len() > MAX_PATH {
            return Err(InvalidEndpoint::TooLong { value: value.to_owned(), len: path.len() });
        }
        Ok(Self(path.into()))
    }
}

impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("can't {verb} the socket {}: {source}", .path.display())]
pub struct BindError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Endpoint {
    /// Binds with mode 0600 and replaces a stale socket in one step: bound under another name,
    /// restricted, then renamed.
    pub fn bind(&self) -> Result<UnixListener, BindError> {
        let fail = |verb| move |source| BindError { verb, path: self.0.clone(), source };
        // A stale socket refuses; one that answers has an owner, whose calls must not come to us.
        if std::os::unix::net::UnixStream::connect(&self.0).is_ok() {
            return Err(fail("take over")(io::Error::other("another process serves on it")));
        }
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(fail("make the directory of"))?;
        // As long as the final name, so that a valid path stays valid.
        let temporary = directory.join(".s");
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail("replace")(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary).map_err(fail("bind"))?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))
            .map_err(fail("restrict"))?;
        fs::rename(&temporary, &self.0).map_err(fail("name"))?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_absolute_unix_paths() {
        for good in ["unix:///run/csi.sock", "unix:/run/csi.sock", "/run/csi.sock"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().path(), Path::new("/run/csi.sock"));
        }
        for bad in ["", "csi.sock", "unix://csi.sock", "tcp://localhost:1", "unix:///run/"] {
            assert!(
                matches!(bad.parse::<Endpoint>(), Err(InvalidEndpoint::NotUnix { .. })),
                "{bad}"
            );
        }
        let long = format!("/{}", "x".repeat(107));
        assert!(matches!(long.parse::<Endpoint>(), Err(InvalidEndpoint::TooLong { len: 108, .. })));
    }

    #[tokio::test]
    async fn a_bound_socket_is_for_root_alone_and_replaces_a_stale_one() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint(dir.path().join("sub/csi.sock"));
        drop(endpoint.bind().unwrap());
        let _listener = endpoint.bind().unwrap();
        let taken = endpoint.bind().unwrap_err().to_string();
        assert!(taken.ends_with(": another process serves on it"), "{taken}");
        let mode = fs::metadata(endpoint.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        tokio::net::UnixStream::connect(endpoint.path()).await.unwrap();
    }
}
