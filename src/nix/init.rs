//! The start: settings that Nix would only warn of, and a store that it has not made yet.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::command::{Config, pairs, push_options, sibling, spec};
use super::error::io_error;
use super::text::{MAX_LINE_BYTES, clean};
use super::{NixError, RealNix, process};

impl RealNix {
    /// Nix itself only warns of a setting that it does not know or can't read, and goes on without
    /// it: a misspelt `sandbox` would leave builds as they are by default.
    pub async fn check_options(&self) -> Result<(), NixError> {
        let refused = |detail| NixError::Command { what: "--nix-option".to_owned(), detail };
        // Whatever is wrong with a nix.conf is said of that.
        let config = Config { conf: None, ..self.config().clone() };
        let options = config.nix_options.clone();
        match RealNix::open(config).complaint(&options).await? {
            Some(wrong) => Err(refused(wrong)),
            None => Ok(()),
        }
    }

    /// What Nix has to say against its settings and `options`.
    pub(super) async fn complaint(
        &self,
        options: &[(String, String)],
    ) -> Result<Option<String>, NixError> {
        let config = self.config();
        // Settings of flakes are none without the feature, from 2.20 on.
        let mut args = vec!["--extra-experimental-features".into(), "nix-command flakes".into()];
        push_options(&mut args, pairs(options));
        args.push("--version".into());
        let mut wrong = None;
        let on_line = |line: &[u8]| {
            let line = clean(&String::from_utf8_lossy(line), MAX_LINE_BYTES);
            let told = line.trim_start_matches("warning: ").trim_start_matches("error: ");
            // Also what is one, by where it stands: `warning: unknown setting 'x'`.
            let is_complaint = line.starts_with("error: ")
                || ["setting '", "option '"].iter().any(|word| told.contains(word));
            if is_complaint && wrong.is_none() {
                wrong = Some(told.to_owned());
            }
        };
        let spec = spec(config, config.program.clone(), args);
        let (ended, ()) = process::run(&spec, &[], on_line, ()).await?;
        let silent = || format!("it gave no reason: {}", ended.exit);
        Ok(wrong.or_else(|| (!ended.exit.is_ok()).then(silent)))
    }

    /// Has Nix make the store's directory and database, if there is no database yet.
    pub async fn init_store(&self) -> Result<(), NixError> {
        self.config().store_dir.parent().map_or(Ok(()), close)?;
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

/// What a cluster gives for a volume is often everybody's to write: whoever builds could put something else in the
/// store's place, and Nix from 2.30 on builds nothing there. Some volumes keep their mode (a squashed NFS, a read-only
/// mount): then it is Nix that refuses them.
fn close(dir: &Path) -> Result<(), NixError> {
    const EVERYBODY_WRITES: u32 = 0o002;
    let mode = fs::metadata(dir).map_err(|err| io_error("look at", dir, err))?.permissions().mode();
    if mode & EVERYBODY_WRITES == 0 {
        return Ok(());
    }
    let closed = Permissions::from_mode(mode & !EVERYBODY_WRITES);
    let dir_shown = dir.display();
    match fs::set_permissions(dir, closed) {
        Ok(()) => {
            tracing::info!(dir = %dir_shown, "everybody could write to it, and no longer can");
        }
        Err(error) => tracing::warn!(
            dir = %dir_shown,
            "everybody can write to it, and it stays so: {error}; Nix from 2.30 on builds nothing \
             there: take the right from others on the volume itself (chmod o-w)"
        ),
    }
    Ok(())
}
