//! `nix-csi gc`: collects garbage, shows what would go, and why the rest stays.

mod explain;
mod store;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::store::Store;
use super::status::table;
use super::{Failure, size};
use crate::actors::gc::holders::Holders;
use crate::actors::gc::plan::Dead;
use crate::actors::gc::report::Report;
use crate::actors::gc::used::{Used, wall_clock};
use crate::actors::gc::{Beat, Collector, Rules, Threads};
use crate::config::{BundleArgs, GcArgs, Output};
use crate::nix::Freed;

/// A node's age of what goes, unless it is set.
const HOUR: Duration = Duration::from_hours(1);
/// Of one step of a collection.
const STEP: Duration = Duration::from_mins(10);

pub async fn gc(args: GcArgs) -> Result<(), Failure> {
    let text = if let Some(path) = &args.explain {
        explain::explain(&Store::read(&args).await?, path, &args).await?
    } else if args.dry_run {
        dry_run(&Store::read(&args).await?, &args)?
    } else {
        return collect(&args).await;
    };
    print!("{text}");
    Ok(())
}

/// What `nix-csi gc --dry-run` says, for a bundle.
pub(super) async fn would_go(args: &BundleArgs) -> Result<String, Failure> {
    let args = GcArgs {
        dry_run: true,
        explain: None,
        older_than: HOUR,
        grace: None,
        atime: false,
        state_dir: args.state_dir.clone(),
        admin_endpoint: args.admin_endpoint.clone(),
        output: Output::Table,
        programs: args.programs.clone(),
    };
    let store = Store::read(&args).await?;
    let asked = format!(
        "# as `nix-csi gc --dry-run --older-than {}` says it. The driver collects by its own --gc-… settings, which are \
         in settings.json; --gc-older-than is 1h on a node and 24h on a cache, unless it is set\n",
        humantime::format_duration(HOUR),
    );
    // It walks all that would go, which nothing could put an end to if it were done here.
    let found = tokio::task::spawn_blocking(move || dry_run(&store, &args)).await??;
    Ok(asked + &found)
}

async fn collect(args: &GcArgs) -> Result<(), Failure> {
    let rules = Rules {
        older_than: Some(args.older_than),
        grace: args.grace.unwrap_or_default(),
        watermarks: None,
        step: STEP,
        reading_is_use: args.atime,
    };
    let used = Used::fixed(store::uses(&args.state_dir)?, wall_clock());
    let store = Arc::new(store::open(args));
    let (holders, threads) = (Holders::default(), Threads::default());
    let collector = Collector { store, used, holders, rules, roots: None, wanted: false, threads };
    let collected = collector.collect(Beat::default()).await;
    let Some(report) = collected.map_err(|error| Failure(error.to_string()))? else {
        return Err(Failure(
            "another nix-csi collects garbage of this store at this moment: try again".to_owned(),
        ));
    };
    print!("{}", told(&report, args)?);
    match report.stuck.first() {
        None => Ok(()),
        Some((path, error)) => Err(Failure(format!("{path} can't be deleted: {error}"))),
    }
}

fn told(report: &Report, args: &GcArgs) -> Result<String, Failure> {
    if args.output == Output::Table {
        return Ok(format!("{report}\n"));
    }
    let stuck = report.stuck.iter();
    let stuck: Vec<_> = stuck
        .map(|(path, error)| json!({ "path": path.to_string(), "error": error.to_string() }))
        .collect();
    let told = json!({
        "deleted": report.deleted,
        "freedBytes": report.freed.bytes,
        "freedInodes": report.freed.inodes,
        "alive": report.alive,
        "remains": report.remains,
        "stuck": stuck,
    });
    Ok(serde_json::to_string_pretty(&told)? + "\n")
}

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
fn dry_run(store: &Store, args: &GcArgs) -> Result<String, Failure> {
    let least = args.older_than.max(args.grace.unwrap_or_default());
    let (old, young): (Vec<_>, Vec<_>) =
        store.dead().into_iter().partition(|dead| store.age(dead) >= least);
    let frees = store.frees(&old)?;
    let total = frees.iter().fold(Freed::default(), |sum, freed| sum.and(*freed));
    let of = |dead: &Dead| store.graph.path(dead.path);
    let alive = store.graph.len() - old.len() - young.len();
    if args.output == Output::Json {
        let entry = |(dead, freed): (&Dead, &Freed)| -> Value {
            let (path, seconds) = (of(dead), store.age(dead).as_secs());
            json!({
                "path": path.path.to_string(),
                "age": seconds,
                "narSize": path.nar_size,
                "frees": freed.bytes,
            })
        };
        let entries: Vec<_> = old.iter().zip(&frees).map(entry).collect();
        let found = json!({
            "paths": entries,
            "frees": total.bytes,
            "younger": young.len(),
            "held": alive,
        });
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let mut text = String::new();
    if !old.is_empty() {
        let mut rows = table(&["PATH", "FREES", "UNUSED FOR"]);
        for (dead, freed) in old.iter().zip(&frees) {
            let age = humantime::format_duration(store.age(dead)).to_string();
            rows.add_row([of(dead).path.to_string(), size(freed.bytes), age]);
        }
        text += &format!("{rows}\n");
    }
    text += &format!(
        "{} paths would go and free {}; {} that nothing holds are younger than {}; {alive} are held\n",
        old.len(),
        size(total.bytes),
        young.len(),
        humantime::format_duration(least),
    );
    Ok(text)
}
