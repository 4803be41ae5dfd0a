//! What this store has built itself, and the node's signature on it.

use std::path::Path;

use crate::read::{SMALL, text_at_most};

use super::command::Config;
use super::error::io_error;
use super::{NixError, RealNix, process, push};

impl RealNix {
    /// Signs what was built here before there was this key. A cache that has a build done here takes what is
    /// there already as it is, and nobody would believe it. For the start; how many there were.
    pub async fn sign_own(&self, key: &Path) -> Result<usize, NixError> {
        let text = text_at_most(key, SMALL).map_err(|err| io_error("read", key, err))?;
        let name = text.split(':').next().unwrap_or_default().trim().to_owned();
        let nix = self.clone();
        let listed = tokio::task::spawn_blocking(move || nix.database().unsigned(&name)).await;
        let what = "looking for what is not signed";
        let paths = listed.unwrap_or_else(|panic| Err(NixError::panicked(what, &panic)))?;
        // Our own daemon is not there yet.
        let config = Config { daemon_socket: self.served_by_others(), ..self.config().clone() };
        for paths in paths.chunks(push::PATHS) {
            let spec = push::sign_command(&config, key, paths, false);
            process::output(&spec, "nix store sign").await?;
        }
        Ok(paths.len())
    }
}
