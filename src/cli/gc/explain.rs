//! Why a path stays, or when it would go.

use std::time::Duration;

use serde_json::json;

use super::store::Store;
use crate::actors::gc::why::{Holder, drivers_directory, way};
use crate::cli::Failure;
use crate::config::{GcArgs, Output};
use crate::grpc::client;
use crate::grpc::proto::admin::{StatusRequest, StatusResponse};
use crate::model::{Index, StorePath};

/// A node's own, unless one is named.
const GRACE: Duration = Duration::from_mins(10);

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
pub(super) async fn explain(
    store: &Store,
    path: &StorePath,
    args: &GcArgs,
) -> Result<String, Failure> {
    let Some(index) = store.graph.find(path) else {
        return Err(Failure(format!("{path} is not valid in the store")));
    };
    let name = |index: &Index| store.graph.path(*index).path.to_string();
    let way = way(&store.graph, &store.reached, index);
    let Some(root) = way.first() else {
        return unheld(store, index, path, args);
    };
    let root = &store.graph.path(*root).path;
    let holders = store.holders.get(root).cloned().unwrap_or_default();
    let holders: Vec<_> = holders.iter().map(|name| (name, Holder::of(name))).collect();
    let node = if holders.iter().any(|(_, holder)| matches!(holder, Holder::View(_))) {
        node(args).await
    } else {
        None
    };
    let users = |holder: &Holder| match (holder, &node) {
        (Holder::View(id), Some(node)) => users(node, id),
        _ => Vec::new(),
    };
    if args.output == Output::Json {
        let way: Vec<_> = way.iter().map(name).collect();
        let names: Vec<_> = holders.iter().map(|(name, _)| name).collect();
        let users: Vec<_> = holders.iter().flat_map(|(_, holder)| users(holder)).collect();
        let found = json!({
            "path": path.to_string(), "held": true, "by": names, "users": users, "way": way,
        });
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let mut text = format!("{path} stays, because it is held by\n");
    for (name, holder) in &holders {
        text += &format!("  {holder}\n");
        // Of whichever driver: it may not be here.
        if drivers_directory(name).is_some() {
            text += &format!("    by the GC root {name}\n");
        }
        for user in users(holder) {
            text += &format!("    {user}\n");
        }
    }
    for (n, step) in way.iter().enumerate().skip(usize::from(way.len() == 1)) {
        text += &format!("{}{}\n", "  ".repeat(n + 1), name(step));
    }
    Ok(text)
}

/// What a node that runs here says; without one its views are but roots.
async fn node(args: &GcArgs) -> Option<StatusResponse> {
    let mut admin = client::admin(args.admin_endpoint.path()).await.ok()?;
    Some(admin.status(StatusRequest {}).await.ok()?.into_inner())
}

/// Who uses a view.
fn users(node: &StatusResponse, id: &str) -> Vec<String> {
    let Some(view) = node.views.iter().find(|view| view.view_id == id) else {
        return vec!["no view that the running node knows".to_owned()];
    };
    let volumes = node.volumes.iter().filter(|volume| volume.root == view.root);
    let mut users: Vec<_> = volumes
        .map(|volume| {
            let pod = match (&*volume.namespace, &*volume.pod) {
                (_, "") => String::new(),
                (namespace, pod) => format!(" of the pod {namespace}/{pod}"),
            };
            format!("the volume {}{pod}, at {}", volume.volume_id, volume.target_path)
        })
        .collect();
    let kept = node.kept.iter().filter(|kept| kept.view_id == id);
    users.extend(kept.map(|kept| {
        let why = if kept.setting { "the node's settings" } else { "`nix-csi prefetch --keep`" };
        format!("kept warm by {why}: {} {}", kept.source_kind, kept.source)
    }));
    if users.is_empty() && view.users == 0 {
        users.push("nobody at the moment: kept for the next volume".to_owned());
    }
    users
}

fn unheld(store: &Store, index: Index, path: &StorePath, args: &GcArgs) -> Result<String, Failure> {
    let dead = store.dead().into_iter().find(|dead| dead.path == index);
    let age = dead.map(|dead| store.age(&dead)).unwrap_or_default();
    let left = |least: Duration| least.checked_sub(age).filter(|left| !left.is_zero());
    let (left, spared) = (left(args.older_than), left(args.grace.unwrap_or(GRACE)));
    if args.output == Output::Json {
        let seconds = |left: Option<Duration>| left.unwrap_or_default().as_secs();
        let found = json!({
            "path": path.to_string(),
            "held": false,
            "age": age.as_secs(),
            "goesIn": seconds(left),
            "graceLeft": seconds(spared),
        });
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let shown = humantime::format_duration;
    let why = format!("nothing holds it, and it was unused for {}", shown(age));
    Ok(match (left, spared) {
        // `nix-csi gc` knows no grace unless it is given one.
        (None, Some(spared)) if args.grace.is_some() => {
            format!("{path} would go in {}: {why}\n", shown(spared))
        }
        (None, _) => format!("{path} would go: {why}\n"),
        (Some(left), None) => {
            format!("{path} would go in {}, or when the disk is too full: {why}\n", shown(left))
        }
        (Some(left), Some(spared)) => format!(
            "{path} would go in {}: {why}. However full the disk is, it stays for {} more, because it \
             has just come or been used\n",
            shown(left),
            shown(spared)
        ),
    })
}
