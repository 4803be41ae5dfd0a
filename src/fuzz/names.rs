//! Names that become names of files, and sizes.

use super::{again, component, refusal, text};
use crate::k8s::KubeletVolume;
use crate::model::{STORE_DIR, StorePath, TargetPath, VolumeId, VolumeSize};
use crate::mount::ViewId;

pub(crate) fn store_path(data: &[u8]) {
    let text = text(data);
    if let Ok(path) = StorePath::from_base_name(&text) {
        assert_eq!(path.base_name(), text);
        whole(&path);
    }
    match StorePath::parse(&text) {
        Ok(path) => {
            assert_eq!(text.strip_suffix('/').unwrap_or(&text), path.to_string());
            whole(&path);
        }
        Err(error) => refusal(&error),
    }
}

fn whole(path: &StorePath) {
    component(path.base_name());
    component(path.hash());
    component(path.name());
    assert_eq!(path.base_name(), format!("{}-{}", path.hash(), path.name()));
    assert_eq!(path.to_string(), format!("{STORE_DIR}/{}", path.base_name()));
    again(path, StorePath::parse);
}

pub(crate) fn volume_id(data: &[u8]) {
    let text = text(data);
    match VolumeId::parse(&text) {
        Ok(id) => {
            assert_eq!(id.as_str(), text);
            component(id.as_str());
            component(&format!(".{id}.tmp"));
            component(&format!("{id}.unreadable"));
            again(&id, VolumeId::parse);
        }
        Err(error) => refusal(&error),
    }
}

pub(crate) fn target_path(data: &[u8]) {
    let text = text(data);
    match TargetPath::parse("target_path", &text) {
        Ok(target) => {
            let path = target.as_path();
            component_of(target.name().to_str().expect("parsed from a text"));
            assert!(path.is_absolute() && !text.contains('\0'));
            assert_eq!(target.parent().join(target.name()), path);
            let parts = path.components().skip(1).map(|part| part.as_os_str().to_str());
            let parts = parts.collect::<Option<Vec<_>>>().expect("parsed from a text");
            assert_eq!(format!("/{}", parts.join("/")), target.to_string());
            parts.into_iter().for_each(component_of);
            again(&target, |text| TargetPath::parse("target_path", text));
            if let Some(volume) = KubeletVolume::at(&target) {
                component_of(&volume.pod_uid);
                component_of(&volume.name);
            }
        }
        Err(error) => refusal(&error),
    }
}

/// Of a path, which the kernel may refuse for its length.
fn component_of(part: &str) {
    assert!(!part.is_empty() && !matches!(part, "." | "..") && !part.contains(['/', '\0']));
}

pub(crate) fn view_id(data: &[u8]) {
    let text = text(data);
    let json = serde_json::to_string(&*text).expect("JSON of a text");
    let read: Option<ViewId> = serde_json::from_str(&json).ok();
    assert_eq!(read, ViewId::parse(&text));
    if let Some(id) = read {
        assert_eq!(id.as_str(), text);
        component(id.as_str());
        let root = StorePath::from_base_name(&format!("{}-x", &text[..32])).expect("its hash");
        assert_eq!(ViewId::new(&root, id.number()), id);
    }
}

pub(crate) fn volume_size(data: &[u8]) {
    match VolumeSize::parse(&text(data)) {
        Ok(size) => {
            assert_eq!(VolumeSize::parse(&size.bytes().to_string()), Ok(size));
            assert!(size.bytes() >= VolumeSize::MIN.bytes() && size.bytes() <= 8 << 40);
        }
        Err(error) => refusal(&error),
    }
}
