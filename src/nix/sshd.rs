//! An sshd of our own that serves the Nix protocol to one user, and nothing else.
//!
//! A session runs one program, our own relay, whatever was asked for: there is no shell to be had, no
//! subsystem, no terminal and no forwarding (sshd_config(5)). The relay connects to our daemon as the
//! session's user, and may do what the daemon lets that user do.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::account;
use super::command::{CommandSpec, base_env};
use super::error::io_error;
use super::ssh_key::make_key;
use super::{ChildSpec, Config, NixError, Readiness, process};
use crate::jail::{Guard, capabilities};
use crate::model::Announcement;
use crate::relay::RELAY;

/// The account of all sessions, as `ssh-ng://nix@…` names it.
pub const USER: &str = "nix";
/// Its number, once [`Sshd::prepare`] has found it.
pub fn account() -> Result<u32, NixError> {
    account::uid(USER, Path::new("/etc/passwd"))
}

/// Of Debian's sshd, which it wants for its unprivileged part.
const PRIVSEP: &str = "/run/sshd";
/// For sessions to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Probes of ours, of the kubelet and of nodes connect and say nothing.
const ROUTINE: &[&str] = &[
    "Connection closed by",
    "Connection reset by",
    "kex_exchange_identification: Connection closed",
    "banner exchange: Connection from",
    "Server listening on",
];

/// What an sshd needs.
#[derive(Debug, Clone)]
pub struct Sshd {
    /// Absolute: it starts itself again for each connection.
    pub program: PathBuf,
    pub listen: SocketAddr,
    /// Holds the host key, if none is given, and the configuration; survives a restart of the host.
    pub state: PathBuf,
    /// A host key that somebody else made.
    pub host_key: Option<PathBuf>,
    pub pid_file: PathBuf,
    /// What it says of itself to a cache that looks for builders.
    pub announcement: Option<Announcement>,
}

impl Sshd {
    pub fn host_key(&self) -> PathBuf {
        self.host_key.clone().unwrap_or_else(|| self.state.join("host_ed25519"))
    }

    /// One public key a line; read for each login.
    pub fn authorized_keys(&self) -> PathBuf {
        self.state.join("authorized_keys")
    }

    fn config_file(&self) -> PathBuf {
        self.state.join("sshd_config")
    }

    /// Blocking. Makes what is missing, and lets sshd check it: the step before the first start.
    pub fn prepare(&self, nix: &Config) -> Result<(), NixError> {
        account::check(USER, Path::new("/etc/passwd"), Path::new("/etc/shadow"))?;
        let dir = |mode: u32, path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).create(path);
            let set =
                made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
            set.map_err(|e| io_error("create", path, e))
        };
        dir(0o755, Path::new(PRIVSEP))?;
        dir(0o700, &self.state)?;
        check_reachable(nix.daemon_socket.as_deref().unwrap_or(Path::new("/")))?;
        check_reachable(nix.desk.as_deref().unwrap_or(Path::new("/")))?;
        if self.host_key.is_none() {
            make_key(&self.host_key(), &nix.search_path)?;
        }
        let mut text = self.config(nix)?;
        self.check(&text, nix)?;
        for line in NEWER {
            let with = text.clone() + line;
            if self.check(&with, nix).is_ok() {
                text = with;
            }
        }
        self.check(&text, nix)
    }

    /// Writes it and has sshd read it.
    fn check(&self, text: &str, nix: &Config) -> Result<(), NixError> {
        let file = self.config_file();
        write_new(&file, text, 0o600).map_err(|e| io_error("write", &file, e))?;
        let mut sshd = Command::new(process::find(&self.program, &nix.search_path));
        run(sshd.arg("-t").arg("-f").arg(&file), &nix.search_path).map(drop)
    }

    /// To be started after [`Sshd::prepare`].
    pub fn spec(&self, nix: &Config) -> ChildSpec {
        let args: [OsString; 4] =
            ["-D".into(), "-e".into(), "-f".into(), self.config_file().into()];
        let keeps = nix.keeps(capabilities::SSHD);
        let guard = Guard { grace: GRACE, keeps, ..Guard::default() };
        let command = CommandSpec {
            program: process::find(&self.program, &nix.search_path),
            args: args.to_vec(),
            env: base_env(Path::new("/"), &nix.search_path),
            directory: "/".into(),
            guard: nix.guard.clone().map(|binary| (binary, guard)),
        };
        let ready = Readiness::IsSshd(on_loopback(self.listen));
        let pid_file = self.pid_file.clone();
        ChildSpec { name: "sshd", command, listener: None, pid_file, ready, routine: ROUTINE }
    }

    fn config(&self, nix: &Config) -> Result<String, NixError> {
        let socket = nix.daemon_socket.clone().unwrap_or_default();
        let relay = std::env::current_exe()
            .map_err(|e| io_error("find", Path::new("/proc/self/exe"), e))?;
        check_reachable(&relay)?;
        let cat = cat(&nix.search_path)?;
        let (host_key, keys) = (self.host_key(), self.authorized_keys());
        for path in [&socket, &relay, &host_key, &keys, &cat].into_iter().chain(&nix.desk) {
            check_plain(path)?;
        }
        let mut forced = format!("exec {} {RELAY} {}", relay.display(), socket.display());
        if let Some(desk) = &nix.desk {
            // The file in which sshd says which key was let in, for the bound per key.
            let _ = write!(forced, r#" {} "$SSH_USER_AUTH""#, desk.display());
        }
        let mut text = String::new();
        for (name, value) in [
            ("ListenAddress", self.listen.to_string()),
            ("HostKey", host_key.display().to_string()),
            // As root: sshd reads a file as the account, and refuses one below a directory that others
            // may write to, as the root of a mounted volume often is.
            ("AuthorizedKeysFile", "none".to_owned()),
            ("AuthorizedKeysCommand", format!("{} {}", cat.display(), keys.display())),
            ("AuthorizedKeysCommandUser", "root".to_owned()),
            ("AllowUsers", USER.to_owned()),
            ("ForceCommand", forced),
        ] {
            let _ = writeln!(text, "{name} {value}"); // a String takes all
        }
        if nix.desk.is_some() {
            text += "ExposeAuthInfo yes\n";
        }
        if let Some(said) = &self.announcement {
            let _ = writeln!(text, "VersionAddendum {said}");
        }
        Ok(text + FIXED)
    }
}

/// The same for each of them.
const FIXED: &str = "\
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
PermitRootLogin no
UsePAM no
StrictModes yes
DisableForwarding yes
PermitTunnel no
PermitTTY no
PermitUserRC no
PermitUserEnvironment no
GatewayPorts no
PrintMotd no
PidFile none
LogLevel INFO
LoginGraceTime 20
MaxStartups 200:30:500
PerSourceMaxStartups 200
MaxSessions 4
TCPKeepAlive yes
ClientAliveInterval 15
ClientAliveCountMax 4
";

/// What an older sshd does not know.
const NEWER: [&str; 2] = [
    // All nodes may come from one address, and their probes connect and say nothing: OpenSSH from 9.8 on
    // would shut out the address.
    "PerSourcePenalties no\n",
    // From 9.2 on: who logs in and opens no session, which would be counted, goes.
    "UnusedConnectionTimeout 30\n",
];

/// What an address that is ours to listen at is called from here.
fn on_loopback(listen: SocketAddr) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The first that sshd would run: it refuses what lies below a directory that another than root may write to, and
/// `/nix/store` is nixbld's too. Images of Nix's have one in `/bin`.
fn cat(search_path: &OsStr) -> Result<PathBuf, NixError> {
    let dirs = std::env::split_paths(search_path).chain(["/bin".into(), "/usr/bin".into()]);
    let found: Vec<_> = dirs.map(|dir| dir.join("cat")).filter(|cat| cat.is_file()).collect();
    let would_run = |cat: &&PathBuf| {
        let real = cat.canonicalize();
        real.is_ok_and(|real| real.ancestors().all(is_roots_alone))
    };
    if let Some(cat) = found.iter().find(would_run) {
        return Ok(cat.clone());
    }
    let Some(cat) = found.first() else {
        let source = io::ErrorKind::NotFound.into();
        return Err(NixError::Spawn { program: "cat".to_owned(), source });
    };
    let detail = format!(
        "sshd runs nothing that others than root could replace, such as {}: put a copy of cat into /bin",
        cat.display()
    );
    Err(NixError::Command { what: "configuring sshd".to_owned(), detail })
}

fn is_roots_alone(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o022 == 0)
}

/// In sshd's configuration and in a shell's word a path stands for itself only if it is plain.
fn check_plain(path: &Path) -> Result<(), NixError> {
    let text = path.to_str().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-=".contains(c);
    if path.is_absolute() && text.chars().all(is_plain) && !text.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "{} can't be named in its configuration: use an absolute path of letters, digits and /._+-=",
        path.display()
    );
    Err(NixError::Command { what: "configuring sshd".to_owned(), detail })
}

/// A session is the account's, and must get to what it needs.
fn check_reachable(socket: &Path) -> Result<(), NixError> {
    let closed = socket
        .ancestors()
        .skip(1)
        .find(|dir| fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o001 == 0));
    let Some(dir) = closed else {
        return Ok(());
    };
    let dir = dir.display();
    let detail = format!(
        "the account {USER:?} can't enter {dir}, where {} is: chmod o+x {dir}",
        socket.display()
    );
    Err(NixError::Command { what: "preparing sshd".to_owned(), detail })
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let staged = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&staged)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(&staged, path)
}

/// Its standard output; an error is what it said.
pub(super) fn run(command: &mut Command, search_path: &OsStr) -> Result<Vec<u8>, NixError> {
    let program = command.get_program().display().to_string();
    let output = command
        .stdin(std::process::Stdio::null())
        .env_clear()
        .env("PATH", search_path)
        .output()
        .map_err(|source| NixError::Spawn { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let detail = format!("{}: {}", output.status, super::text::clean(&said, 500).trim());
    Err(NixError::Command { what: program, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sshd(state: &Path) -> Sshd {
        Sshd {
            program: "/usr/sbin/sshd".into(),
            listen: "0.0.0.0:22".parse().unwrap(),
            state: state.into(),
            host_key: None,
            pid_file: "/run/n/sshd.pid".into(),
            announcement: Some(Announcement::default()),
        }
    }

    #[test]
    fn a_session_can_only_speak_nix() {
        let mut nix = Config::new("/home");
        nix.daemon_socket = Some("/run/n/socket".into());
        let text = sshd(Path::new("/state/ssh")).config(&nix).unwrap();
        let own = std::env::current_exe().unwrap();
        let forced = format!("ForceCommand exec {} relay /run/n/socket", own.display());
        for line in [
            &*forced,
            "HostKey /state/ssh/host_ed25519",
            "AllowUsers nix",
            "DisableForwarding yes",
            "PermitTTY no",
            "AuthenticationMethods publickey",
            "PasswordAuthentication no",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(!text.contains("Subsystem"));
        nix.desk = Some("/run/n/desk".into());
        let text = sshd(Path::new("/state/ssh")).config(&nix).unwrap();
        let forced = format!("{forced} /run/n/desk \"$SSH_USER_AUTH\"\n");
        assert!(text.contains(&forced) && text.contains("ExposeAuthInfo yes\n"), "{text}");
    }

    #[test]
    fn no_path_can_add_a_line_or_a_command() {
        let mut nix = Config::new("/home");
        for bad in ["/run/$(id)/s", "/run/a b/s", "/run/a\nPermitTTY yes/s", "/run/a;b/s"] {
            nix.daemon_socket = Some(bad.into());
            let error = sshd(Path::new("/state")).config(&nix).unwrap_err().to_string();
            assert!(error.contains("can't be named in its configuration"), "{error}");
        }
        nix.daemon_socket = Some("/run/n/s".into());
        assert!(sshd(Path::new("state")).config(&nix).is_err());
    }

    #[test]
    fn a_socket_that_sessions_can_not_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/nix-daemon/socket");
        let mode =
            |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        let error = check_reachable(&socket).unwrap_err().to_string();
        assert!(error.ends_with(&format!("chmod o+x {}", dir.path().display())), "{error}");
        mode(0o711);
        check_reachable(&socket).unwrap();
    }
}
