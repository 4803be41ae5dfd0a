//! Settings of ssh, as a client and as a server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// How a cache or a builder is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ssh, to others")]
pub struct SshSettings {
    /// Private key that Nix's ssh uses; read again when it changes.
    #[arg(long, env = "NIX_CSI_SSH_KEY", value_parser = plain)]
    pub ssh_key: Option<PathBuf>,
    /// Known hosts; all others are refused.
    #[arg(long, env = "NIX_CSI_SSH_KNOWN_HOSTS", value_parser = plain)]
    pub ssh_known_hosts: Option<PathBuf>,
    /// Port of ssh, if it is not 22.
    #[arg(long, env = "NIX_CSI_SSH_PORT")]
    pub ssh_port: Option<u16>,
}

/// An sshd of our own, which serves the Nix protocol to the account `nix` and nothing else.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ssh, from others")]
pub struct SshdSettings {
    /// Where sshd listens; a node has one only if this is set. Who may log in at a node builds as it
    /// likes, and with its daemon's trust is as good as root there: the cache's key alone belongs there.
    #[arg(long, env = "NIX_CSI_SSH_LISTEN", value_name = "ADDRESS:PORT")]
    pub ssh_listen: Option<SocketAddr>,
    /// Directory of the public keys that may log in, `*.pub`; changes count at once.
    #[arg(long, env = "NIX_CSI_AUTHORIZED_KEYS", value_parser = super::absolute, default_value = "/etc/nix-csi/authorized-keys", value_name = "DIR")]
    pub authorized_keys: PathBuf,
    /// sshd's private host key; without it one is made in --state-dir.
    #[arg(long, env = "NIX_CSI_SSH_HOST_KEY", value_parser = plain)]
    pub ssh_host_key: Option<PathBuf>,
    /// The sshd program.
    #[arg(long, env = "NIX_CSI_SSHD", value_parser = super::absolute, default_value = "/usr/sbin/sshd")]
    pub sshd: PathBuf,
}

/// Nix splits `NIX_SSHOPTS` at blanks, and sshd its lines.
fn plain(text: &str) -> Result<PathBuf, String> {
    let path = super::absolute(text)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-=".contains(c);
    match text.chars().find(|c| !is_plain(*c)) {
        None => Ok(path),
        Some(c) => Err(format!("{c:?} can't be in it: use letters, digits and /._+-=")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_must_survive_a_list_of_options() {
        assert!(plain("/etc/nix-csi/ssh/id_ed25519").is_ok());
        assert_eq!(
            plain("/a b").unwrap_err(),
            "' ' can't be in it: use letters, digits and /._+-="
        );
        assert!(plain("a").is_err());
        assert!(plain("/a\n-oProxyCommand=x").is_err());
    }
}
