//! `nix-csi mount`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{Failure, message, size, target};
use crate::config::{MountArgs, Sockets, SourceArgs};
use crate::grpc::client;
use crate::grpc::proto::admin::{Build, ProgressRequest, RetryBuildsRequest, StatusRequest};
use crate::grpc::proto::csi::volume_capability::access_mode::Mode;
use crate::grpc::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::grpc::proto::csi::{NodePublishVolumeRequest, VolumeCapability};
use crate::model::{SIZE, VolumeId};
use crate::nix::lock_local_flake;

/// How often progress is asked for; a person sees no faster.
const POLL: Duration = Duration::from_millis(200);

pub async fn mount(args: MountArgs) -> Result<(), Failure> {
    let target = target::resolve(&args.directory)?;
    let id = target::volume_id(&target)?;
    let (key, value) = match args.source.clone() {
        SourceArgs { store_path: Some(path), .. } => ("storePath", path),
        SourceArgs { expr: Some(text), .. } => ("nixExpr", text),
        SourceArgs { flake_ref: Some(reference), .. } => {
            ("flakeRef", lock_local_flake(&args.nix, &reference).await?)
        }
        SourceArgs { .. } => unreachable!("clap asks for one source"),
    };
    let mut volume_context = HashMap::from([(key.to_owned(), value)]);
    volume_context.extend(args.size.map(|size| (SIZE.to_owned(), size)));
    let call = NodePublishVolumeRequest {
        volume_id: id.to_string(),
        target_path: target.to_string(),
        volume_capability: Some(VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        }),
        readonly: !args.rw,
        volume_context,
        ..NodePublishVolumeRequest::default()
    };
    forgive(&args.sockets, &call.volume_context[key]).await;
    let began = Instant::now();
    publish(&args.sockets, &id, call).await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", summary(&args.sockets, &id, seconds).await?);
    Ok(())
}

/// A person who asks again wants it tried again.
pub(super) async fn forgive(sockets: &Sockets, source: &str) {
    if let Ok(mut admin) = client::admin(sockets.admin_endpoint.path()).await {
        let ask = RetryBuildsRequest { numbers: Vec::new(), source: source.to_owned() };
        drop(admin.retry_builds(ask).await);
    }
}

/// Publishes, showing progress; a call that was held too long is made again, as the kubelet does.
async fn publish(
    sockets: &Sockets,
    id: &VolumeId,
    call: NodePublishVolumeRequest,
) -> Result<(), Failure> {
    let published = async {
        loop {
            let mut node = client::node(sockets.endpoint.path()).await?;
            let request = client::within(sockets.traceparent.as_deref(), call.clone());
            match node.node_publish_volume(client::by_a_person(request)).await {
                Ok(_) => return Ok(()),
                Err(e) if e.code() == client::Code::Aborted => {}
                Err(e) => return Err(message(&e)),
            }
        }
    };
    with_progress(sockets, id, published).await
}

/// Shows how far what is realised for `id` is, until `work` ends.
pub(super) async fn with_progress<T>(
    sockets: &Sockets,
    id: &VolumeId,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
    let result = tokio::select! {
        result = work => result,
        never = show_progress(sockets, id, &bar) => match never {},
    };
    bar.finish_and_clear();
    result
}

async fn show_progress(sockets: &Sockets, id: &VolumeId, bar: &ProgressBar) -> Infallible {
    let Ok(mut admin) = client::admin(sockets.admin_endpoint.path()).await else {
        return std::future::pending().await; // a bar is a comfort, not a condition
    };
    loop {
        let ask = ProgressRequest { volume_id: id.to_string() };
        let answer = admin.progress(ask).await.ok().and_then(|a| a.into_inner().build);
        bar.set_message(answer.map_or_else(|| "mounting".to_owned(), |build| describe(&build)));
        bar.tick();
        tokio::time::sleep(POLL).await;
    }
}

pub(super) fn describe(build: &Build) -> String {
    let mut parts = Vec::new();
    if build.builds_expected > 0 {
        parts.push(format!("{}/{} built", build.builds_done, build.builds_expected));
    }
    if build.bytes_expected > 0 {
        let [done, all] = [build.bytes_done, build.bytes_expected].map(size);
        parts.push(format!("{done} of {all} fetched"));
    }
    parts.push(build.current.clone());
    parts.join(", ")
}

async fn summary(sockets: &Sockets, id: &VolumeId, seconds: f64) -> Result<String, Failure> {
    let mut admin = client::admin(sockets.admin_endpoint.path()).await?;
    let status = admin.status(StatusRequest {}).await.map_err(|e| message(&e))?.into_inner();
    let volume = status.volumes.into_iter().find(|v| v.volume_id == id.as_str());
    let volume = volume.ok_or("mounted, and unmounted again by somebody else")?;
    Ok(format!(
        "mounted {} ({} paths, {}, {}) at {} in {seconds:.3} s",
        volume.root,
        volume.paths,
        size(volume.closure_bytes),
        volume.origin,
        volume.target_path,
    ))
}
