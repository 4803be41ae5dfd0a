//! `nix-csi uploads`.

use std::time::Duration;

use serde_json::{Value, json};

use super::status::table;
use super::{Failure, message};
use crate::config::{Output, RetryUploadsArgs, UploadsArgs, UploadsCommand};
use crate::grpc::client;
use crate::grpc::proto::admin::{
    ListUploadsRequest, ListUploadsResponse, RetryUploadsRequest, Upload,
};

pub async fn uploads(args: UploadsArgs) -> Result<(), Failure> {
    match args {
        UploadsArgs { command: Some(UploadsCommand::Retry(args)), .. } => retry(args).await,
        UploadsArgs { .. } => list(args).await,
    }
}

async fn list(args: UploadsArgs) -> Result<(), Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let found = admin.list_uploads(ListUploadsRequest {}).await.map_err(|e| message(&e))?;
    let found = found.into_inner();
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(&found))?),
        Output::Table => print!("{}", as_table(&found)),
    }
    Ok(())
}

async fn retry(args: RetryUploadsArgs) -> Result<(), Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let named = args.path.len();
    let ask = RetryUploadsRequest { paths: args.path };
    let retried = admin.retry_uploads(ask).await.map_err(|e| message(&e))?.into_inner().retried;
    match retried {
        0 if named > 0 => {
            return Err("no upload waits for that path: `nix-csi uploads` lists them".into());
        }
        1 => println!("1 upload is tried again now"),
        n => println!("{n} uploads are tried again now"),
    }
    Ok(())
}

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
pub(super) fn as_table(found: &ListUploadsResponse) -> String {
    let (waiting, sending, dead) = (found.waiting, found.sending, found.dead);
    let mut text =
        format!("to {}: {waiting} waiting, {sending} sending, {dead} dead\n", found.destination);
    if !found.uploads.is_empty() {
        let mut rows = table(&["PATH", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "LAST ERROR"]);
        for upload in &found.uploads {
            rows.add_row(row(upload));
        }
        text += &format!("{rows}\n");
    }
    let left_off = (waiting + sending + dead).saturating_sub(found.uploads.len() as u64);
    if left_off > 0 {
        text += &format!("and {left_off} more\n");
    }
    for record in &found.unreadable {
        text += &format!("WARNING: unreadable record {}: {}\n", record.path, record.reason);
    }
    text
}

fn row(upload: &Upload) -> [String; 5] {
    let next = match (&*upload.state, upload.again_in) {
        ("waiting", Some(seconds)) => {
            let left = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default();
            format!("in {}", humantime::format_duration(left))
        }
        ("waiting", None) => "next".to_owned(),
        _ => "-".to_owned(),
    };
    let error = if upload.last_error.is_empty() { "-" } else { &upload.last_error };
    let attempts = upload.attempts.to_string();
    [upload.path.clone(), upload.state.clone(), attempts, next, error.replace('\n', " ")]
}

pub(super) fn as_json(found: &ListUploadsResponse) -> Value {
    json!({
        "destination": found.destination,
        "waiting": found.waiting,
        "sending": found.sending,
        "dead": found.dead,
        "uploads": found.uploads.iter().map(upload_json).collect::<Vec<_>>(),
        "unreadable": found.unreadable.iter()
            .map(|u| json!({ "path": u.path, "reason": u.reason }))
            .collect::<Vec<_>>(),
    })
}

fn upload_json(upload: &Upload) -> Value {
    json!({
        "path": upload.path,
        "state": upload.state,
        "attempts": upload.attempts,
        "queuedAt": upload.queued_at,
        "againInSeconds": upload.again_in,
        "lastError": upload.last_error,
    })
}
