//! How Nix's ssh leaves this machine, as a client: which key, which host keys, which port,
//! which cipher.

use std::fmt::Write as _;
use std::path::PathBuf;

/// ssh would wait for minutes for a host that does not answer, or no longer.
pub(super) const LIMITS: &str =
    "-o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=15 -o ServerAliveCountMax=3";

/// What OpenSSH offers by itself, in another order: with AES in the processor, its first choice
/// chacha20-poly1305 costs both ends half as much again. In full, since ssh before 8.1 can't be told an
/// order alone.
const CIPHERS: &str = "-o Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,\
    chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr";

/// Identity and trust of all ssh connections that Nix makes.
#[derive(Debug, Clone, Default)]
pub struct SshClient {
    /// Private key; without one, what ssh finds by itself.
    pub key: Option<PathBuf>,
    /// Known hosts; an unknown one is refused.
    pub known_hosts: Option<PathBuf>,
    pub port: Option<u16>,
}

impl SshClient {
    /// `NIX_SSHOPTS`, which Nix splits at blanks; so no path here may have one (`config` checks).
    pub fn options(&self) -> String {
        let mut text = LIMITS.to_owned();
        let mut add = |option: std::fmt::Arguments<'_>| {
            let _ = write!(text, " {option}"); // a String takes all
        };
        if has_aes() {
            add(format_args!("{CIPHERS}"));
        }
        if let Some(key) = &self.key {
            add(format_args!("-i {} -o IdentitiesOnly=yes -o IdentityAgent=none", key.display()));
        }
        if let Some(known) = &self.known_hosts {
            add(format_args!("-o UserKnownHostsFile={}", known.display()));
            add(format_args!("-o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"));
        }
        if let Some(port) = self.port {
            add(format_args!("-p {port}"));
        }
        text
    }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_said() {
        let ciphers = if has_aes() { format!(" {CIPHERS}") } else { String::new() };
        assert_eq!(SshClient::default().options(), format!("{LIMITS}{ciphers}"));
        let client = SshClient {
            key: Some("/k/id".into()),
            known_hosts: Some("/k/known".into()),
            port: Some(2222),
        };
        let options = client.options();
        assert!(options.starts_with(LIMITS));
        for part in
            ["-i /k/id ", "UserKnownHostsFile=/k/known", "StrictHostKeyChecking=yes", "-p 2222"]
        {
            assert!(options.contains(part), "{options}");
        }
    }
}
