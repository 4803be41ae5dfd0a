//! `nix-csi status`.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::mount::describe;
use super::{Failure, message, size};
use crate::config::{Output, StatusArgs};
use crate::grpc::client;
use crate::grpc::proto::admin::{Build, Gc, Kept, StatusRequest, StatusResponse, View, Volume};

/// What a node says of its health when it serves.
const SERVES: [&str; 2] = ["ready", "impaired"];
const POLL: Duration = Duration::from_millis(50);
/// A hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

pub async fn status(args: StatusArgs) -> Result<(), Failure> {
    let status = match args.wait {
        Some(limit) => once_ready(&args, limit).await?,
        None => now(&args).await?,
    };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(&status))?),
        Output::Table => print!("{}", as_tables(&status)),
    }
    Ok(())
}

async fn now(args: &StatusArgs) -> Result<StatusResponse, Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    Ok(admin.status(StatusRequest {}).await.map_err(|e| message(&e))?.into_inner())
}

/// A node that has just been started has no socket yet, and one that hangs does not answer.
async fn once_ready(args: &StatusArgs, limit: Duration) -> Result<StatusResponse, Failure> {
    let mut lacks = "it does not answer".to_owned();
    let ready = async {
        loop {
            lacks = match now(args).await {
                Err(Failure(reason)) => reason,
                Ok(status) => match &status.node {
                    Some(node) if SERVES.contains(&node.health.as_str()) => return status,
                    Some(node) => {
                        format!("it is {}{}", node.health, in_brackets(&node.health_reason))
                    }
                    None => "it does not say how it is".to_owned(),
                },
            };
            tokio::time::sleep(POLL).await;
        }
    };
    // More than centuries are no end either.
    timeout(limit.min(LONGEST), ready).await.map_err(|_| {
        let limit = humantime::format_duration(limit);
        Failure(format!("the node is not ready after {limit}: {lacks}"))
    })
}

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
pub(super) fn as_tables(status: &StatusResponse) -> String {
    let node = status.node.clone().unwrap_or_default();
    let mut text = format!(
        "node {} is {}{}; nix-csi {}, {}, {} views\n",
        node.node_id,
        node.health,
        in_brackets(&node.health_reason),
        node.version,
        node.nix_version,
        node.presentation,
    );
    if !node.presentation_reason.is_empty() {
        text += &format!("this node can do less than asked: {}\n", node.presentation_reason);
    }
    if status.volumes.is_empty() {
        text += "no volumes\n";
    } else {
        let mut table = table(&["TARGET", "SOURCE", "STATE", "ACCESS", "CLOSURE", "AGE", "VIEW"]);
        let mut rows: Vec<_> = status.volumes.iter().map(row).collect();
        rows.sort();
        table.add_rows(rows);
        text += &format!("{table}\n");
    }
    for build in &status.builds {
        text += &format!(
            "realising {} {} for {:.0} s: {}\n",
            build.source_kind,
            short(&build.source),
            build.seconds,
            describe(build)
        );
    }
    for kept in &status.kept {
        text += &format!("{}\n", kept_line(kept));
    }
    text += &status.gc.as_ref().map(gc_lines).unwrap_or_default();
    for refused in &status.refused_sources {
        text += &format!("WARNING: not kept warm: {refused}\n");
    }
    for view in status.views.iter().filter(|v| !v.replaced.is_empty()) {
        text += &format!(
            "WARNING: paths were replaced below view {}: {}\n",
            view.view_id,
            view.replaced.join(", ")
        );
    }
    for record in &status.unreadable {
        text += &format!("WARNING: unreadable record {}: {}\n", record.path, record.reason);
    }
    text
}

/// `garbage collected 3m ago: 7 paths deleted, 12 MB freed`.
fn gc_lines(gc: &Gc) -> String {
    let span = |seconds: f64| {
        let whole = Duration::try_from_secs_f64(seconds.floor()).unwrap_or_default();
        humantime::format_duration(whole).to_string()
    };
    let mut lines = Vec::new();
    if let Some(ago) = gc.last_seconds_ago {
        lines.push(format!("garbage collected {} ago: {}\n", span(ago), gc.last));
    }
    if !gc.step.is_empty() {
        lines.push(format!("collecting garbage: {}, for {}\n", gc.step, span(gc.step_seconds)));
    }
    if !gc.error.is_empty() {
        lines.push(format!("WARNING: the last garbage collection failed: {}\n", gc.error));
    }
    lines.concat()
}

/// `kept warm: flakeRef github:o/r#x, ready, for 2days more`.
fn kept_line(kept: &Kept) -> String {
    let span = |seconds: u64| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let mut parts = vec![format!("kept warm: {} {}", kept.source_kind, short(&kept.source))];
    parts.push(kept.state.clone());
    if let Some(until) = kept.until.filter(|_| !kept.setting) {
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        parts.push(format!("for {} more", span(until.saturating_sub(now))));
    }
    if !kept.reason.is_empty() {
        let had = if kept.root.is_empty() { "" } else { ", with what it had" };
        let again = Duration::try_from_secs_f64(kept.again_in.unwrap_or_default().ceil());
        let again = span(again.unwrap_or_default().as_secs());
        parts.push(format!("tried again in {again}{had}: {}", kept.reason.replace('\n', "\n  ")));
    }
    parts.join(", ")
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table
}

fn row(volume: &Volume) -> [String; 7] {
    let age = jiff::Timestamp::now().as_second() - volume.published_at;
    let age = Duration::from_secs(age.try_into().unwrap_or(0));
    [
        volume.target_path.clone(),
        format!("{} {}", volume.source_kind, short(&volume.source)),
        volume.state.clone(),
        if volume.read_only { "ro" } else { "rw" }.to_owned(),
        format!("{} paths, {}", volume.paths, size(volume.closure_bytes)),
        humantime::format_duration(age).to_string(),
        volume.presentation.clone(),
    ]
}

pub(super) fn short(source: &str) -> String {
    const MOST: usize = 60;
    let line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST).chain(['…']).collect()
}

pub(super) fn as_json(status: &StatusResponse) -> Value {
    let node = status.node.clone().unwrap_or_default();
    json!({
        "node": {
            "nodeId": node.node_id,
            "driver": node.driver,
            "version": node.version,
            "nixVersion": node.nix_version,
            "presentation": node.presentation,
            "presentationReason": node.presentation_reason,
            "health": node.health,
            "healthReason": node.health_reason,
        },
        "volumes": status.volumes.iter().map(volume_json).collect::<Vec<_>>(),
        "builds": status.builds.iter().map(build_json).collect::<Vec<_>>(),
        "views": status.views.iter().map(view_json).collect::<Vec<_>>(),
        "unreadable": status.unreadable.iter()
            .map(|u| json!({ "path": u.path, "reason": u.reason }))
            .collect::<Vec<_>>(),
        "kept": status.kept.iter().map(kept_json).collect::<Vec<_>>(),
        "refusedSources": status.refused_sources,
        "gc": status.gc.as_ref().map(|gc| json!({
            "step": gc.step,
            "stepSeconds": gc.step_seconds,
            "last": gc.last,
            "lastSecondsAgo": gc.last_seconds_ago,
            "error": gc.error,
        })),
    })
}

fn kept_json(k: &Kept) -> Value {
    json!({
        "sourceKind": k.source_kind,
        "source": k.source,
        "state": k.state,
        "root": k.root,
        "viewId": k.view_id,
        "reason": k.reason,
        "againInSeconds": k.again_in,
        "setting": k.setting,
        "until": k.until,
    })
}

fn volume_json(v: &Volume) -> Value {
    json!({
        "volumeId": v.volume_id,
        "state": v.state,
        "targetPath": v.target_path,
        "sourceKind": v.source_kind,
        "source": v.source,
        "readOnly": v.read_only,
        "root": v.root,
        "paths": v.paths,
        "closureBytes": v.closure_bytes,
        "publishedAt": v.published_at,
        "origin": v.origin,
        "revision": v.revision,
        "presentation": v.presentation,
        "layout": v.layout,
        "pod": v.pod,
        "podUid": v.pod_uid,
        "serviceAccount": v.service_account,
        "ephemeral": v.ephemeral,
        "namespace": v.namespace,
    })
}

pub(super) fn build_json(b: &Build) -> Value {
    json!({
        "sourceKind": b.source_kind,
        "source": b.source,
        "volumes": b.volumes,
        "seconds": b.seconds,
        "buildsDone": b.builds_done,
        "buildsExpected": b.builds_expected,
        "fetchesDone": b.fetches_done,
        "fetchesExpected": b.fetches_expected,
        "bytesDone": b.bytes_done,
        "bytesExpected": b.bytes_expected,
        "current": b.current,
        "logTail": b.log_tail,
        "number": b.number,
        "stage": b.stage,
        "tenant": b.tenant,
    })
}

fn view_json(v: &View) -> Value {
    json!({
        "viewId": v.view_id,
        "root": v.root,
        "paths": v.paths,
        "closureBytes": v.closure_bytes,
        "users": v.users,
        "presentation": v.presentation,
        "replaced": v.replaced,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_listed_by_target() {
        let volume = |id: &str, target: &str| Volume {
            volume_id: id.into(),
            target_path: target.into(),
            ..Volume::default()
        };
        let volumes = vec![volume("a", "/srv/hello"), volume("b", "/srv/again")];
        let text = as_tables(&StatusResponse { volumes, ..StatusResponse::default() });
        assert!(text.find("/srv/again").unwrap() < text.find("/srv/hello").unwrap(), "{text}");
    }
}
