//! From a directory as typed to a target path and the volume that is, or will be, there.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Failure;
use crate::model::{TargetPath, VolumeId};

/// The node follows no symlink, so they are resolved here, as the caller sees them. The last
/// component is kept as it is: it may not be there yet, or may be a mount point.
pub(super) fn resolve(directory: &Path) -> Result<TargetPath, Failure> {
    let absolute = std::path::absolute(directory)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        // `..` at the end, or the root directory.
        let whole = absolute.canonicalize()?;
        return Ok(TargetPath::parse("directory", &whole.to_string_lossy())?);
    };
    let parent = parent.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            format!("the directory {} does not exist", parent.display())
        }
        _ => format!("{}: {e}", parent.display()),
    })?;
    let resolved = parent.join(name);
    let text = resolved.to_str().ok_or("the directory's path is not UTF-8")?;
    Ok(TargetPath::parse("directory", text)?)
}

/// One volume per directory: its id is made from the path.
pub(super) fn volume_id(target: &TargetPath) -> Result<VolumeId, Failure> {
    let digest = Sha256::digest(target.to_string().as_bytes());
    Ok(VolumeId::parse(&format!("cli-{}", hex::encode(&digest[..16])))?)
}
