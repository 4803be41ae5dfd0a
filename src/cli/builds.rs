//! `nix-csi builds`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::mount::describe;
use super::status::{build_json, short, table};
use super::{Failure, message};
use crate::config::{BuildsArgs, BuildsCommand, Output, RetryArgs};
use crate::grpc::client;
use crate::grpc::proto::admin::{
    Build, BuildChange, BuildsRequest, BuildsResponse, FailedBuild, RetryBuildsRequest,
    WatchBuildsRequest,
};

/// How often bars turn, for a person to see that something is alive.
const TURN: Duration = Duration::from_millis(200);

pub async fn builds(args: BuildsArgs) -> Result<(), Failure> {
    match args {
        BuildsArgs { command: Some(BuildsCommand::Retry(args)), .. } => retry(args).await,
        BuildsArgs { watch: true, .. } => watch(args).await,
        BuildsArgs { .. } => list(args).await,
    }
}

async fn list(args: BuildsArgs) -> Result<(), Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let found = admin.builds(BuildsRequest {}).await.map_err(|e| message(&e))?.into_inner();
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(&found))?),
        Output::Table => print!("{}", as_tables(&found)),
    }
    Ok(())
}

async fn retry(args: RetryArgs) -> Result<(), Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let asked = args.number.len();
    let ask = RetryBuildsRequest { numbers: args.number, source: String::new() };
    let forgiven = admin.retry_builds(ask).await.map_err(|e| message(&e))?.into_inner().forgiven;
    match forgiven {
        0 if asked > 0 => {
            return Err("no failure has that number: `nix-csi builds` lists them".into());
        }
        1 => println!("1 failure is tried again at the next call"),
        n => println!("{n} failures are tried again at the next call"),
    }
    Ok(())
}

async fn watch(args: BuildsArgs) -> Result<(), Failure> {
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let changes = admin.watch_builds(WatchBuildsRequest {}).await.map_err(|e| message(&e))?;
    let mut changes = changes.into_inner();
    let mut shown = Shown::default();
    while let Some(change) = changes.message().await.map_err(|e| message(&e))? {
        match args.output {
            Output::Json => println!("{}", change_json(&change)),
            Output::Table => shown.show(change),
        }
    }
    Ok(())
}

/// A bar for each build, on a terminal; a line for each end, everywhere.
#[derive(Default)]
struct Shown {
    all: MultiProgress,
    bars: BTreeMap<u64, ProgressBar>,
}

impl Shown {
    fn show(&mut self, change: BuildChange) {
        let Some(build) = change.build else {
            return;
        };
        let bar = self.bars.entry(build.number).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TURN);
            bar
        });
        let what = format!("{} {}", build.source_kind, short(&build.source));
        bar.set_message(format!("{what}: {}", describe(&build)));
        if change.ended {
            bar.finish_and_clear();
            self.bars.remove(&build.number);
            let how = if change.error.is_empty() { "done" } else { &change.error };
            self.say(&format!("{what}: {how} ({:.1} s)", build.seconds));
        } else if !std::io::stderr().is_terminal() {
            self.say(&format!("{what}: {}", describe(&build)));
        }
    }

    /// Above the bars.
    fn say(&self, line: &str) {
        self.all.suspend(|| println!("{line}"));
    }
}

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
pub(super) fn as_tables(found: &BuildsResponse) -> String {
    let mut text = String::new();
    if found.builds.is_empty() {
        text += "nothing is being built\n";
    } else {
        let mut rows = table(&["NO", "SOURCE", "FOR", "VOLUMES", "SECONDS", "STAGE", "PROGRESS"]);
        for build in &found.builds {
            rows.add_row(row(build));
        }
        text += &format!("{rows}\n");
    }
    for failure in &found.failures {
        text += &format!(
            "failure {} of {} {}, {} in a row, tried again in {:.0} s:\n  {}\n",
            failure.number,
            failure.source_kind,
            short(&failure.source),
            failure.times,
            failure.again_in.ceil(),
            failure.error.replace('\n', "\n  "),
        );
    }
    text
}

fn row(build: &Build) -> [String; 7] {
    [
        build.number.to_string(),
        format!("{} {}", build.source_kind, short(&build.source)),
        build.tenant.clone(),
        build.volumes.len().to_string(),
        format!("{:.0}", build.seconds),
        build.stage.clone(),
        describe(build),
    ]
}

pub(super) fn as_json(found: &BuildsResponse) -> Value {
    json!({
        "builds": found.builds.iter().map(build_json).collect::<Vec<_>>(),
        "failures": found.failures.iter().map(failure_json).collect::<Vec<_>>(),
    })
}

fn failure_json(failure: &FailedBuild) -> Value {
    json!({
        "number": failure.number,
        "sourceKind": failure.source_kind,
        "source": failure.source,
        "error": failure.error,
        "times": failure.times,
        "againInSeconds": failure.again_in,
    })
}

fn change_json(change: &BuildChange) -> Value {
    json!({
        "build": change.build.as_ref().map(build_json),
        "ended": change.ended,
        "error": change.error,
    })
}
