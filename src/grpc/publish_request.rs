//! From CSI's NodePublishVolumeRequest to a valid request, or an error that names the field.

use std::collections::BTreeMap;

use tonic::Status;

use super::proto::csi::NodePublishVolumeRequest;
use super::proto::csi::volume_capability::access_mode::Mode;
use super::proto::csi::volume_capability::{AccessType, MountVolume};
use crate::actors::volume::Request;
use crate::k8s::{KubeletVolume, split_attributes};
use crate::model::{
    Access, HOST_USERS, Layout, PodInfo, PodTokens, SERVICE_ACCOUNT_TOKENS, SIZE, Secret, Source,
    System, TargetPath, VolumeId, VolumeSize, VolumeSpec, choose_source,
};
use crate::nix::check_access_tokens;

/// Bytes of all attributes together; one expression may take most of it.
const MAX_ATTRIBUTES: usize = 128 * 1024;

/// What the edge lets in.
pub struct Admittance {
    pub system: System,
    /// Pods may name flakes of the node and of registries.
    pub allow_local_flakes: bool,
    /// Who calls is a kubelet, which says whose a volume is.
    pub kubelet: bool,
    /// The operator has a program for pods' service-account tokens.
    pub exchanges_tokens: bool,
    /// For what is said to a pod's author.
    pub driver: String,
}

/// `host_users` is what the API server says of the pod; it knows better than the attribute.
pub(super) fn parse(
    call: NodePublishVolumeRequest,
    admittance: &Admittance,
    is_by_a_person: bool,
    host_users: Option<bool>,
) -> Result<(VolumeId, Request), Status> {
    let bad = |e: &dyn ToString| Status::invalid_argument(e.to_string());
    let id = VolumeId::parse(&call.volume_id).map_err(|e| bad(&e))?;
    let target = TargetPath::parse("target_path", &call.target_path).map_err(|e| bad(&e))?;
    let capability = call
        .volume_capability
        .ok_or_else(|| Status::invalid_argument("volume_capability is missing"))?;
    match &capability.access_type {
        Some(AccessType::Mount(mount)) => check_mount(mount)?,
        Some(AccessType::Block(_)) => {
            return Err(Status::invalid_argument(
                "volume_capability.block: a store is a file system: use mount access",
            ));
        }
        None => return Err(Status::invalid_argument("volume_capability.access_type is missing")),
    }
    let access_mode = capability.access_mode.map_or(0, |m| m.mode);
    let access = access_of(access_mode, call.readonly)?;
    // From the secrets first: there a newer kubelet puts them if the CSIDriver object says so.
    let (mut secrets, context) = (call.secrets, &call.volume_context);
    let tokens = secrets.remove(SERVICE_ACCOUNT_TOKENS);
    let tokens = tokens.or_else(|| context.get(SERVICE_ACCOUNT_TOKENS).cloned());
    let secret = Secret::parse(secrets).map_err(|e| bad(&e))?;
    if let Some(secret) = &secret {
        check_access_tokens(secret.access_tokens()).map_err(|why| {
            Status::invalid_argument(format!(
                "secrets (nodePublishSecretRef): access-tokens: {why}"
            ))
        })?;
    }
    let own = call.volume_context.iter().filter(|(key, _)| *key != SERVICE_ACCOUNT_TOKENS);
    let bytes: usize = own.map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_ATTRIBUTES {
        return Err(Status::invalid_argument(format!(
            "volumeAttributes have {bytes} bytes, more than the {MAX_ATTRIBUTES} allowed"
        )));
    }
    let (attributes, pod) = split_attributes(call.volume_context);
    if admittance.kubelet && !is_by_a_person {
        check_pod(pod.as_ref(), &target, &admittance.driver)?;
    }
    // What the pod names itself wins.
    let exchanged = admittance.exchanges_tokens && secret.is_none();
    let tokens = match (&pod, tokens.filter(|_| exchanged)) {
        (Some(pod), Some(text)) => PodTokens::parse(&text, pod).map_err(|e| bad(&e))?,
        _ => None,
    };
    let source = choose_source(&attributes, &admittance.system).map_err(|e| bad(&e))?;
    if pod.is_some() && !admittance.allow_local_flakes {
        refuse_local(&source)?;
    }
    let layout = layout_of(access, &attributes, host_users)?;
    let size = size_of(access, &attributes)?;
    let attributes = attributes.into();
    let spec =
        VolumeSpec { access, access_mode, attributes, source, pod, layout, size, secret, tokens };
    Ok((id, Request { spec, target }))
}

/// The kubelet says whose the volume is, and that it is inline: without that anybody's volume would be
/// nobody's, and what a pod's author writes could pass for the kubelet's word. A pod's uid is known to
/// no author beforehand, and the kubelet puts it into the target path as well.
fn check_pod(pod: Option<&PodInfo>, target: &TargetPath, driver: &str) -> Result<(), Status> {
    let Some(pod) = pod.filter(|pod| pod.is_ephemeral) else {
        return Err(Status::invalid_argument(format!(
            "volume_context csi.storage.k8s.io/ephemeral is not \"true\": only inline volumes are \
             served: write `volumes: [{{name: nix, csi: {{driver: {driver}, volumeAttributes: …}}}}]` \
             into the pod, not a PersistentVolume; and the CSIDriver object needs podInfoOnMount: true"
        )));
    };
    match KubeletVolume::at(target) {
        Some(volume) if volume.pod_uid == pod.uid => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "volume_context csi.storage.k8s.io/pod.uid {:?} is not the pod of target_path {:?}: the \
             CSIDriver object needs podInfoOnMount: true, so that the kubelet says whose a volume is",
            pod.uid.chars().take(64).collect::<String>(),
            target.to_string().chars().take(200).collect::<String>(),
        ))),
    }
}

/// A pod's author has no files on the node, and a registry is whoever answers for it.
fn refuse_local(source: &Source) -> Result<(), Status> {
    let Source::FlakeRef(reference) = source else {
        return Ok(());
    };
    let flake = reference.split(['#', '?']).next().unwrap_or_default();
    let what = match flake.split_once(':') {
        Some(("path" | "file" | "git+file" | "hg+file" | "tarball+file" | "file+file", _)) => {
            "a file of the node"
        }
        Some(("flake", _)) => "a flake of a registry",
        Some(_) => return Ok(()),
        None if flake.is_empty() || flake.starts_with(['.', '/', '~']) => "a file of the node",
        None => "a flake of a registry",
    };
    let short: String = source.public_text().chars().take(80).collect();
    Err(Status::invalid_argument(format!(
        "volumeAttributes.flakeRef {short:?} names {what}, which pods may not: name it in full, such \
         as github:owner/repo; the operator allows it with --allow-local-flakes"
    )))
}

fn check_mount(mount: &MountVolume) -> Result<(), Status> {
    if !mount.fs_type.is_empty() {
        let given: String = mount.fs_type.chars().take(32).collect();
        return Err(Status::invalid_argument(format!(
            "fsType {given:?}: leave it out, a store has no file system to choose"
        )));
    }
    if !mount.mount_flags.is_empty() {
        return Err(Status::invalid_argument(
            "mount options (volume_capability.mount.mount_flags) are not supported: leave them out",
        ));
    }
    Ok(())
}

/// Contents live on one node, so only single-node writers are served.
fn access_of(mode: i32, readonly: bool) -> Result<Access, Status> {
    match Mode::try_from(mode) {
        Ok(Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly) => Ok(Access::ReadOnly),
        Ok(Mode::SingleNodeWriter) if readonly => Ok(Access::ReadOnly),
        Ok(Mode::SingleNodeWriter) => Ok(Access::Writable),
        other => Err(Status::invalid_argument(format!(
            "volume_capability.access_mode {} is not supported: use SINGLE_NODE_WRITER, \
             SINGLE_NODE_READER_ONLY or MULTI_NODE_READER_ONLY",
            other.map_or_else(|_| mode.to_string(), |m| m.as_str_name().to_owned()),
        ))),
    }
}

/// The kubelet does not say whether a pod has a user namespace. An overlay can't be idmapped for one,
/// and a writable volume is an overlay: mounted, it would only fail in the runtime.
fn layout_of(
    access: Access,
    attributes: &BTreeMap<String, String>,
    known: Option<bool>,
) -> Result<Layout, Status> {
    let written = match attributes.get(HOST_USERS).map(String::as_str) {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => {
            let short: String = other.chars().take(32).collect();
            return Err(Status::invalid_argument(format!(
                "volumeAttributes.{HOST_USERS} {short:?}: give it the value of the pod's hostUsers, \
                 \"true\" or \"false\" in quotes, or leave it out"
            )));
        }
    };
    if known.or(written).unwrap_or(true) {
        return Ok(Layout::Plain);
    }
    if access == Access::ReadOnly {
        return Ok(Layout::Idmapped);
    }
    let field = if known.is_some() { "the pod's spec." } else { "volumeAttributes." };
    Err(Status::invalid_argument(format!(
        "{field}{HOST_USERS} is false, and a writable volume can't be mapped into a user namespace: \
         write readOnly: true beside driver in the pod's volumes[].csi (readOnly in volumeMounts is \
         not enough), or hostUsers: true into the pod's spec"
    )))
}

fn size_of(
    access: Access,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<VolumeSize>, Status> {
    let Some(text) = attributes.get(SIZE) else {
        return Ok(None);
    };
    let size = VolumeSize::parse(text).map_err(|e| Status::invalid_argument(e.to_string()))?;
    if access == Access::ReadOnly {
        return Err(Status::invalid_argument(
            "volumeAttributes.size limits what a pod writes, and this volume is read-only: leave size \
             out, or readOnly: true in the pod's volumes[].csi",
        ));
    }
    Ok(Some(size))
}

/// Lines `attribute=value`; `@id`, `@target`, `@mode`, `@readonly`, `@kubelet`, `@local` and `@users` are
/// of the call and of who calls.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_publish(data: &[u8]) {
    use super::proto::csi::{VolumeCapability, volume_capability::AccessMode};

    let mut all: std::collections::HashMap<_, _> =
        crate::fuzz::pairs(&crate::fuzz::text(data)).collect();
    let mut said = |key: &str| all.remove(key);
    let pod = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount";
    let mode = said("@mode").and_then(|mode| mode.parse().ok()).unwrap_or(1);
    let access_mode = Some(AccessMode { mode });
    let access_type = Some(AccessType::Mount(MountVolume::default()));
    let call = NodePublishVolumeRequest {
        volume_id: said("@id").unwrap_or_else(|| "csi-1".to_owned()),
        target_path: said("@target").unwrap_or_else(|| pod.to_owned()),
        volume_capability: Some(VolumeCapability { access_mode, access_type }),
        readonly: said("@readonly").is_some(),
        ..NodePublishVolumeRequest::default()
    };
    let host_users = said("@users").map(|users| users == "true");
    let admittance = Admittance {
        system: System::current(),
        kubelet: said("@kubelet").is_some(),
        allow_local_flakes: said("@local").is_some(),
        exchanges_tokens: true,
        driver: "nix.csi.store".to_owned(),
    };
    let call = NodePublishVolumeRequest { volume_context: all, ..call };
    let parse = |call| parse(call, &admittance, false, host_users);
    match parse(call.clone()) {
        Ok((id, request)) => {
            crate::actors::volume::fuzz_request(&id, &request);
            let (same, again) = parse(call).expect("the same request");
            assert!(same == id && again.target == request.target);
            assert!(again.spec.is_same_request(&request.spec));
            assert!(request.spec.size.is_none() || request.spec.access == Access::Writable);
            if admittance.kubelet {
                let pod = request.spec.pod.expect("a kubelet says whose it is");
                let volume = KubeletVolume::at(&request.target).expect("a kubelet's target");
                assert_eq!(pod.uid, volume.pod_uid);
            }
        }
        Err(status) => crate::fuzz::refusal(&status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(
        access: Access,
        written: Option<&str>,
        known: Option<bool>,
    ) -> Result<Layout, String> {
        let written = written.map(|value| (HOST_USERS.to_owned(), value.to_owned()));
        layout_of(access, &BTreeMap::from_iter(written), known)
            .map_err(|status| status.message().to_owned())
    }

    #[test]
    fn the_api_server_knows_better_than_the_attribute() {
        let read_only = |written, known| layout(Access::ReadOnly, written, known).unwrap();
        assert_eq!(read_only(None, None), Layout::Plain);
        assert_eq!(read_only(Some("true"), None), Layout::Plain);
        assert_eq!(read_only(Some("false"), None), Layout::Idmapped);
        assert_eq!(read_only(Some("false"), Some(true)), Layout::Plain);
        assert_eq!(read_only(Some("true"), Some(false)), Layout::Idmapped);
        assert_eq!(read_only(None, Some(false)), Layout::Idmapped);
        // A value that means nothing is said, whoever knows better.
        assert!(layout(Access::ReadOnly, Some("False"), Some(true)).is_err());
    }

    #[test]
    fn a_writable_volume_is_refused_by_the_name_of_who_says_so() {
        let writable = |written, known| layout(Access::Writable, written, known);
        assert_eq!(writable(None, None), Ok(Layout::Plain));
        assert_eq!(writable(Some("false"), Some(true)), Ok(Layout::Plain));
        let e = writable(Some("false"), None).unwrap_err();
        assert!(e.starts_with("volumeAttributes.hostUsers is false, "), "{e}");
        let e = writable(Some("true"), Some(false)).unwrap_err();
        assert!(e.starts_with("the pod's spec.hostUsers is false, "), "{e}");
    }
}
