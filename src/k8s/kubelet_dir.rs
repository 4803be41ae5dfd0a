//! Where the kubelet keeps an inline volume:
//! `<kubelet>/pods/<pod uid>/volumes/kubernetes.io~csi/<volume>/mount` is the target, beside
//! `vol_data.json`, which the kubelet writes before it publishes and removes after it has
//! unpublished (its `pkg/volume/csi/csi_mounter.go`).

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::model::TargetPath;

const PLUGIN: &str = "kubernetes.io~csi";
const DATA: &str = "vol_data.json";

/// A volume as the kubelet keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletVolume {
    pub pod_uid: String,
    /// As the pod names it.
    pub name: String,
    /// `<kubelet>/pods`.
    pods: PathBuf,
    /// The directory of the volume.
    dir: PathBuf,
}

impl KubeletVolume {
    /// `None`: no kubelet has chosen this target.
    pub fn at(target: &TargetPath) -> Option<Self> {
        let dir = target.as_path().parent()?;
        let mut up = target.as_path().components().rev().map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let (mount, name, plugin, volumes) = (up.next()??, up.next()??, up.next()??, up.next()??);
        let (pod_uid, pods) = (up.next()??, up.next()??);
        let is_one = (mount, plugin, volumes, pods) == ("mount", PLUGIN, "volumes", "pods");
        let pods = dir.ancestors().nth(4)?.to_owned();
        is_one.then(|| Self {
            pod_uid: pod_uid.to_owned(),
            name: name.to_owned(),
            pods,
            dir: dir.to_owned(),
        })
    }

    /// Blocking. Whether the kubelet has certainly done with the volume. What can't be read is an
    /// error: unknown is not gone.
    pub fn is_forgotten(&self) -> io::Result<bool> {
        // A kubelet directory that is not mounted here looks empty.
        if !fs::symlink_metadata(&self.pods)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        is_absent(&self.dir.join(DATA))
    }
}

fn is_absent(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> TargetPath {
        TargetPath::parse("target_path", text).unwrap()
    }

    #[test]
    fn a_kubelets_target_tells_the_pod_and_the_volumes_name() {
        let of = |text: &str| KubeletVolume::at(&target(text));
        let found = of("/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/nix/mount").unwrap();
        assert_eq!((&*found.pod_uid, &*found.name), ("u-1", "nix"));
        assert_eq!(found.pods, Path::new("/var/lib/kubelet/pods"));
        for other in [
            "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/nix",
            "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~nfs/nix/mount",
            "/pods/volumes/kubernetes.io~csi/nix/mount",
            "/mnt/target",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_is_certainly_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let kubelet = dir.path().join("kubelet");
        let volume = kubelet.join("pods/u/volumes/kubernetes.io~csi/nix");
        let at = KubeletVolume::at(&target(volume.join("mount").to_str().unwrap())).unwrap();
        at.is_forgotten().unwrap_err();
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join(DATA), "{}").unwrap();
        assert!(!at.is_forgotten().unwrap());
        fs::remove_file(volume.join(DATA)).unwrap();
        assert!(at.is_forgotten().unwrap());
        fs::remove_dir_all(kubelet.join("pods/u")).unwrap();
        assert!(at.is_forgotten().unwrap());
        fs::remove_dir_all(&kubelet).unwrap();
        at.is_forgotten().unwrap_err();
    }
}
