//! `nix-csi prefetch`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::mount::{forgive, with_progress};
use super::{Failure, message, size};
use crate::config::{Output, PrefetchArgs};
use crate::grpc::client;
use crate::grpc::proto::admin::{PrefetchRequest, PrefetchResponse, ReleaseRequest};
use crate::model::{Source, VolumeId};
use crate::nix::lock_local_flake;

/// One after the other, in the node's queue as one person; a failure does not stop the others.
pub async fn prefetch(args: PrefetchArgs) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (key, text) in asked(&args)? {
        let done =
            if args.drop { release(&args, &text).await } else { one(&args, key, &text).await };
        match done {
            Ok(line) => println!("{line}"),
            Err(Failure(why)) => {
                if args.output == Output::Json {
                    println!("{}", json!({ "source": text, "error": why }));
                }
                failures.push(why);
            }
        }
    }
    // A person reads what failed, and is not told twice of one.
    failures.dedup();
    if failures.is_empty() { Ok(()) } else { Err(Failure(failures.join("\nnix-csi: "))) }
}

/// Kind and text of each source; a bad one is refused before anything begins.
fn asked(args: &PrefetchArgs) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut all = Vec::new();
    for text in &args.source {
        all.push((Source::parse_either(text)?.key(), text.clone()));
    }
    let lists =
        [("flakeRef", &args.flake_ref), ("storePath", &args.store_path), ("nixExpr", &args.expr)];
    for (key, texts) in lists {
        all.extend(texts.iter().map(|text| (key, text.clone())));
    }
    Ok(all)
}

async fn one(args: &PrefetchArgs, key: &str, text: &str) -> Result<String, Failure> {
    let source =
        if key == "flakeRef" { lock_local_flake(&args.nix, text).await? } else { text.to_owned() };
    forgive(&args.sockets, &source).await;
    let id = fresh_id()?;
    let ask = PrefetchRequest {
        source_kind: key.to_owned(),
        source,
        volume_id: id.to_string(),
        keep_seconds: args.keep.map(|keep| keep.as_secs()),
    };
    let began = Instant::now();
    let made = with_progress(&args.sockets, &id, async {
        let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
        Ok(admin
            .prefetch(client::within(args.sockets.traceparent.as_deref(), ask))
            .await
            .map_err(|e| message(&e))?
            .into_inner())
    });
    let (made, seconds) = (made.await?, began.elapsed().as_secs_f64());
    Ok(match args.output {
        Output::Json => as_json(text, &made, seconds).to_string(),
        Output::Table => as_text(&made, seconds, args.keep),
    })
}

/// No other prefetch has it.
fn fresh_id() -> Result<VolumeId, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(VolumeId::parse(&format!("prefetch-{}-{}", std::process::id(), now.as_nanos()))?)
}

async fn release(args: &PrefetchArgs, text: &str) -> Result<String, Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let ask = ReleaseRequest { source: text.to_owned() };
    admin.release(ask).await.map_err(|e| message(&e))?;
    Ok(match args.output {
        Output::Json => json!({ "source": text, "released": true }).to_string(),
        Output::Table => format!("{text} is not kept any longer"),
    })
}

fn as_text(made: &PrefetchResponse, seconds: f64, keep: Option<Duration>) -> String {
    let kept = keep.map(|keep| format!(", kept for {}", humantime::format_duration(keep)));
    format!(
        "{} ({} paths, {}, {}) is warm after {seconds:.3} s{}",
        made.root,
        made.paths,
        size(made.closure_bytes),
        made.origin,
        kept.unwrap_or_default(),
    )
}

fn as_json(source: &str, made: &PrefetchResponse, seconds: f64) -> Value {
    json!({
        "source": source,
        "root": made.root,
        "paths": made.paths,
        "closureBytes": made.closure_bytes,
        "origin": made.origin,
        "revision": made.revision,
        "keptUntil": made.kept_until,
        "seconds": seconds,
    })
}
