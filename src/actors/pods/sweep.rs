//! Volumes whose pod is gone for good and that nobody has unpublished: the kubelet lost its own record
//! of them, as it does after an error that it takes for final. Everything that can't be known keeps
//! a volume.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::PodTable;
use crate::actors::core::blocking;
use crate::actors::metrics;
use crate::actors::volume::{Directory, VolumeStatus};
use crate::k8s::{Api, KubeletVolume};
use crate::model::{PodInfo, TargetPath, VolumeId};

/// Since when each volume has been without a pod.
pub(super) type Absences = HashMap<VolumeId, Instant>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    id: VolumeId,
    target: TargetPath,
    pod: PodInfo,
    volume: KubeletVolume,
}

/// Volumes that have been without their pod for `after`, as far as the table tells. Pure.
pub(super) fn candidates(
    absences: &mut Absences,
    volumes: Vec<VolumeStatus>,
    table: &PodTable,
    (now, after): (Instant, Duration),
) -> Vec<Candidate> {
    // A watch that is down proves nothing, and what it missed may be longer than it knows.
    if !table.is_whole() {
        absences.clear();
        return Vec::new();
    }
    let without: Vec<_> = volumes.into_iter().filter_map(|v| candidate(v, table)).collect();
    absences.retain(|id, _| without.iter().any(|candidate| candidate.id == *id));
    let mut due = without;
    due.retain(|candidate| {
        let since = *absences.entry(candidate.id.clone()).or_insert(now);
        now - since >= after
    });
    due
}

fn candidate(status: VolumeStatus, table: &PodTable) -> Option<Candidate> {
    let is_mounted = matches!(status.state, "mounted" | "unverified");
    let request = status.request.filter(|_| is_mounted)?;
    let (target, pod) = (request.target.clone(), request.spec.pod.clone()?);
    let volume = KubeletVolume::at(&target)?;
    let is_certain = !pod.uid.is_empty() && pod.uid == volume.pod_uid;
    let is_gone = is_certain && table.pod(&pod.uid).is_none();
    is_gone.then_some(Candidate { id: status.id, target, pod, volume })
}

/// Asks the API server and the kubelet's directory once more, then unpublishes.
pub(super) async fn sweep(candidate: Candidate, api: Arc<dyn Api>, directory: Directory) {
    let Candidate { id, target, pod, volume } = candidate;
    let keep = |why: &dyn std::fmt::Display| {
        tracing::warn!(
            volume = %id, pod = pod.name, namespace = pod.namespace, %why,
            "the volume's pod seems gone; the volume stays"
        );
    };
    match api.find_pod(&pod.namespace, &pod.name).await {
        Ok(found) if found.as_ref().is_some_and(|found| found.uid == pod.uid) => return,
        Ok(_) => {}
        Err(error) => return keep(&error),
    }
    match blocking(move || volume.is_forgotten()).await {
        Ok(Ok(true)) => {}
        // It will call Unpublish when its own time has come.
        Ok(Ok(false)) => return,
        Ok(Err(error)) => return keep(&format!("can't read the kubelet's directory: {error}")),
        Err(panic) => return keep(&panic),
    }
    match directory.unpublish(&id, target).await {
        Ok(()) => {
            metrics::SWEPT.inc();
            tracing::warn!(
                volume = %id, pod = pod.name, namespace = pod.namespace,
                "unpublished: the pod is gone and nobody asked"
            );
        }
        Err(error) => keep(&error),
    }
}
