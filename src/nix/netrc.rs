//! Who is let in where, by a netrc: the operator's and a request's, and what must not be shown of them.

use std::path::Path;

use rustix::process::getuid;

use crate::model::Secret;
use crate::read::up_to;

use super::NixError;
use super::evaluator::Tokens;
use super::real::Inner;
use super::redact::{Redactor, secrets_of_netrc};
use super::secret_file::SecretFile;

/// Nix's default.
pub const NETRC: &str = "/etc/nix/netrc";
/// Bytes of it that are read for its secrets.
const MAX_NETRC: usize = 4 << 20;

impl Inner {
    /// Knows these tokens, and the netrc's secrets as they are now. A netrc that can't be read has none
    /// to show.
    pub(super) fn redactor(&self, tokens: &Tokens, secret: Option<&Secret>) -> Redactor {
        let netrc = secrets_of_netrc(&String::from_utf8_lossy(&self.netrc()));
        let own = secret.map(|secret| secrets_of_netrc(secret.netrc())).unwrap_or_default();
        Redactor::new(tokens.secrets().into_iter().chain(netrc).chain(own))
    }

    /// Blocking. What a request's secret has for a netrc, for an evaluator.
    pub(super) fn netrc_file(&self, secret: &Secret) -> Result<Option<SecretFile>, NixError> {
        let text = secret.netrc();
        let make =
            || SecretFile::new(&self.config.secrets, text.as_bytes(), self.config.evaluator.uid);
        (!text.trim().is_empty()).then(make).transpose()
    }

    /// Blocking. The same for a fetch, before what the operator's netrc has: of two for a host the first counts.
    pub(super) fn netrc_with_ours(&self, secret: &Secret) -> Result<Option<SecretFile>, NixError> {
        let text = secret.netrc();
        if text.trim().is_empty() {
            return Ok(None);
        }
        let both = [text.as_bytes(), b"\n", &self.netrc()].concat();
        SecretFile::new(&self.config.secrets, &both, getuid().as_raw()).map(Some)
    }

    /// The operator's; one that can't be read has nothing.
    fn netrc(&self) -> Vec<u8> {
        let named = self.config.nix_options.iter().rev().find(|(name, _)| name == "netrc-file");
        let netrc = named.map_or(NETRC, |(_, path)| path);
        up_to(Path::new(netrc), MAX_NETRC).unwrap_or_default()
    }
}
