//! A local flake, copied into the store by whoever asks, so that the node need not read the
//! asker's files (git refuses another user's tree anyway).

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use super::NixError;
use super::text::clean;

/// The parts of `nix flake metadata --json` that name the copy. The same from Nix 2.8 on.
#[derive(Deserialize)]
struct Metadata {
    path: String,
    locked: Locked,
}

#[derive(Deserialize)]
struct Locked {
    #[serde(rename = "narHash")]
    nar_hash: String,
    dir: Option<String>,
}

/// Turns a reference to a flake on this machine (`.`, `/dir`, `path:…`, `git+file:…`, each with an
/// optional `#attribute`) into one to its copy in the store; any other stays as it is. Runs with the
/// caller's environment and directory.
pub async fn lock_local_flake(program: &Path, reference: &str) -> Result<String, NixError> {
    let (flake, attribute) = match reference.split_once('#') {
        Some((flake, attribute)) => (flake, Some(attribute)),
        None => (reference, None),
    };
    if !is_local(flake) {
        return Ok(reference.to_owned());
    }
    let flake = if flake.is_empty() { "." } else { flake };
    let output = Command::new(program)
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(["flake", "metadata", "--json", "--no-write-lock-file", "--", flake])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| NixError::Spawn { program: program.display().to_string(), source })?;
    let failed =
        |detail: String| NixError::Command { what: format!("copying flake {flake}"), detail };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed(cause(&stderr)));
    }
    let metadata = serde_json::from_slice(&output.stdout).map_err(|e| failed(e.to_string()))?;
    Ok(locked(&metadata, attribute))
}

/// git's own reason, or Nix's last error.
fn cause(stderr: &str) -> String {
    let stderr = clean(stderr, usize::MAX);
    let git = stderr.lines().find_map(|line| line.strip_prefix("fatal: "));
    let nix = || stderr.lines().rev().find_map(|line| line.trim().strip_prefix("error:"));
    git.or_else(nix).unwrap_or(&stderr).trim().to_owned()
}

fn is_local(flake: &str) -> bool {
    flake.is_empty()
        || ["path:", "git+file:"].iter().any(|scheme| flake.starts_with(scheme))
        || flake.starts_with(['.', '/', '~'])
}

#[expect(clippy::format_push_string, reason = "at most two parts")]
fn locked(metadata: &Metadata, attribute: Option<&str>) -> String {
    let mut text = format!("path:{}?narHash={}", metadata.path, encode(&metadata.locked.nar_hash));
    if let Some(dir) = metadata.locked.dir.as_deref().filter(|dir| !dir.is_empty()) {
        text += &format!("&dir={}", encode(dir));
    }
    if let Some(attribute) = attribute {
        text += &format!("#{attribute}");
    }
    text
}

/// Percent-encodes what has a meaning in a query (RFC 3986, 2.2); `+` would become a space.
fn encode(value: &str) -> String {
    use std::fmt::Write;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flakes_of_this_machine_are_copied() {
        for local in ["", ".", "./sub", "/srv/flake", "path:/srv/flake", "git+file:///srv/flake"] {
            assert!(is_local(local), "{local}");
        }
        for remote in ["github:nixos/nixpkgs", "nixpkgs", "git+https://host/x", "flake:x"] {
            assert!(!is_local(remote), "{remote}");
        }
    }

    #[test]
    fn the_copy_is_named_with_its_hash() {
        let json = r#"{"path":"/nix/store/x-source","locked":{"narHash":"sha256-a+b/c=","dir":"sub dir"}}"#;
        let metadata = serde_json::from_str(json).unwrap();
        assert_eq!(
            locked(&metadata, Some("hello")),
            "path:/nix/store/x-source?narHash=sha256-a%2Bb/c%3D&dir=sub%20dir#hello"
        );
    }
}
