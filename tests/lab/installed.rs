//! Programs that the project's own scripts install.

use std::path::Path;
use std::process::Command;

/// What one of the scripts that install something says where it is.
pub fn installed(script: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let install = Command::new(dir.join(script)).output().unwrap();
    let error = String::from_utf8_lossy(&install.stderr);
    assert!(install.status.success(), "{script}: {error}");
    String::from_utf8(install.stdout).unwrap().trim().to_owned()
}
