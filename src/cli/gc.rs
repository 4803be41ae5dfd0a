//! `nix-csi gc`: what a collection would take, and why the rest stays.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::status::table;
use super::{Failure, size};
use crate::actors::gc::plan::{Dead, dead};
use crate::actors::gc::used::Uses;
use crate::actors::gc::why::{Holder, way};
use crate::config::{GcArgs, Output};
use crate::model::{Index, StoreGraph, StorePath};
use crate::nix::{Config, Garbage, RealNix};

/// A store at one moment.
struct Store {
    graph: StoreGraph,
    holders: BTreeMap<StorePath, Vec<String>>,
    reached: Vec<Option<Index>>,
    now: u64,
}

pub async fn gc(args: GcArgs) -> Result<(), Failure> {
    let store = read(&args).await?;
    let text = match &args.explain {
        Some(path) => explain(&store, path, &args)?,
        None => dry_run(&store, &args)?,
    };
    print!("{text}");
    Ok(())
}

async fn read(args: &GcArgs) -> Result<Store, Failure> {
    let nix = RealNix::open(Config { program: args.nix.clone(), ..Config::new("/") });
    // First what holds, then what there is: what came in between is held by nobody, and is young.
    let roots = nix.roots().await?;
    let graph = tokio::task::spawn_blocking(move || nix.graph()).await??;
    let reached = graph.reached(roots.iter().filter_map(|root| graph.find(&root.path)));
    let mut holders: BTreeMap<StorePath, Vec<String>> = BTreeMap::new();
    for root in roots {
        holders.entry(root.path).or_default().push(root.name);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    Ok(Store { graph, holders, reached, now })
}

impl Store {
    fn dead(&self) -> Vec<Dead> {
        dead(&self.graph, &self.reached, &Uses::default())
    }

    fn age(&self, dead: &Dead) -> Duration {
        // Whole seconds: a second is a long time for a clock that was set.
        Duration::from_secs(self.now.saturating_sub(dead.used))
    }
}

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
fn dry_run(store: &Store, args: &GcArgs) -> Result<String, Failure> {
    let all = store.dead();
    let (old, young): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|dead| store.age(dead) >= args.older_than);
    let of = |dead: &Dead| store.graph.path(dead.path);
    let bytes: u64 = old.iter().map(|dead| of(dead).nar_size).sum();
    let alive = store.graph.len() - old.len() - young.len();
    if args.output == Output::Json {
        let entry = |dead: &Dead| -> Value {
            let (path, seconds) = (of(dead), store.age(dead).as_secs());
            json!({ "path": path.path.to_string(), "age": seconds, "narSize": path.nar_size })
        };
        let entries: Vec<_> = old.iter().map(entry).collect();
        let found =
            json!({ "paths": entries, "narSize": bytes, "younger": young.len(), "held": alive });
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let mut text = String::new();
    if !old.is_empty() {
        let mut rows = table(&["PATH", "SIZE", "UNUSED FOR"]);
        for dead in &old {
            let path = of(dead);
            let age = humantime::format_duration(store.age(dead)).to_string();
            rows.add_row([path.path.to_string(), size(path.nar_size), age]);
        }
        text += &format!("{rows}\n");
    }
    text += &format!(
        "{} paths of {} at most would go; {} that nothing holds are younger than {}; {alive} are held\n",
        old.len(),
        size(bytes),
        young.len(),
        humantime::format_duration(args.older_than),
    );
    Ok(text)
}

#[expect(clippy::format_push_string, reason = "a few lines for a person")]
fn explain(store: &Store, path: &StorePath, args: &GcArgs) -> Result<String, Failure> {
    let Some(index) = store.graph.find(path) else {
        return Err(Failure(format!("{path} is not valid in the store")));
    };
    let name = |index: &Index| store.graph.path(*index).path.to_string();
    let way = way(&store.graph, &store.reached, index);
    let Some(root) = way.first() else {
        return Ok(unheld(store, index, path, args)?);
    };
    let holders = store.holders.get(&store.graph.path(*root).path).cloned().unwrap_or_default();
    if args.output == Output::Json {
        let way: Vec<_> = way.iter().map(name).collect();
        let found = json!({ "path": path.to_string(), "held": true, "by": holders, "way": way });
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let mut text = format!("{path} stays, because it is held by\n");
    for holder in &holders {
        text += &format!("  {}\n", Holder::of(holder));
    }
    for (n, step) in way.iter().enumerate().skip(usize::from(way.len() == 1)) {
        text += &format!("{}{}\n", "  ".repeat(n + 1), name(step));
    }
    Ok(text)
}

fn unheld(
    store: &Store,
    index: Index,
    path: &StorePath,
    args: &GcArgs,
) -> Result<String, serde_json::Error> {
    let dead = store.dead().into_iter().find(|dead| dead.path == index);
    let age = dead.map(|dead| store.age(&dead)).unwrap_or_default();
    if args.output == Output::Json {
        let found = json!({ "path": path.to_string(), "held": false, "age": age.as_secs() });
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let shown = humantime::format_duration(age);
    Ok(match args.older_than.checked_sub(age).filter(|left| !left.is_zero()) {
        None => format!("{path} would go: nothing holds it, and it was unused for {shown}\n"),
        Some(left) => format!(
            "{path} would go in {}: nothing holds it, and it was unused for {shown}\n",
            humantime::format_duration(left)
        ),
    })
}
