//! The first start on a machine: a store that Nix has not made yet.

use super::command::{Config, sibling};
use super::error::io_error;
use super::{NixError, RealNix, process};

impl RealNix {
    /// Has Nix make the store's directory and database, if there is no database yet.
    pub async fn init_store(&self) -> Result<(), NixError> {
        let database = self.config().state_dir.join("db/db.sqlite");
        if database.try_exists().map_err(|err| io_error("look for", &database, err))? {
            return Ok(());
        }
        tracing::info!(database = %database.display(), "making the store");
        // Directly: our own daemon is not there yet, and would do the same.
        let config = Config { daemon_socket: None, ..self.config().clone() };
        let spec = sibling(&config, "nix-store", &["--init".as_ref()]);
        process::output(&spec, "nix-store --init").await.map(drop)
    }
}
