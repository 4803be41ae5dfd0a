//! What it costs to know what of a large store could go.

use std::fs;

use nix_csi::actors::gc::plan::dead;
use nix_csi::actors::gc::used::Uses;
use nix_csi::nix::{Config, Garbage, RealNix};
use tokio::time::Instant;

use crate::lab::Lab;
use crate::report::{Report, Row};

const STORE: &str = "100,000 paths";
const PATHS: usize = 100_000;
/// As Nix would have made them: a million references, each to a path that is older.
const ROWS: &str = "
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
    insert into ValidPaths (path, hash, registrationTime, narSize)
    select printf('/nix/store/%032d-some-package-%d.%d', i, i % 977, i % 13), printf('sha256:%064d', 0), i, 1000 from n;
    insert or ignore into Refs
    select a.id, b.id from ValidPaths a, (select 1 k union select 2 union select 3 union select 5
        union select 7 union select 11 union select 13 union select 17 union select 19 union select 23)
    join ValidPaths b on b.id = a.id / (k + 1) + k % 7 where a.id > 60;";

/// On a store that nobody serves any more: what is made here is in its database and nothing but names.
pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) {
    lab.inside(|| {
        let database = rusqlite::Connection::open("/nix/var/nix/db/db.sqlite").unwrap();
        database.execute_batch(ROWS).unwrap();
        let mut paths = database
            .prepare("select path from ValidPaths where registrationTime <= 100000")
            .unwrap();
        // Nix looks at what lies in the store's directory.
        for path in paths.query_map([], |row| row.get::<_, String>(0)).unwrap() {
            fs::write(path.unwrap(), "").unwrap();
        }
    });
    for _ in 0..rounds {
        let began = Instant::now();
        let planned = lab.inside(plan);
        report.add(Row::ours("gc-plan", STORE), began.elapsed());
        assert!(planned >= PATHS, "{planned}");

        let began = Instant::now();
        let said = lab.ok("nix-store", &["--gc", "--print-dead"]);
        let row = Row::other("gc-plan", STORE, "nix-store --print-dead");
        report.add(row, began.elapsed());
        assert!(said.lines().count() >= PATHS);
    }
}

/// How many paths could go; from nothing, as a process that has just started.
fn plan() -> usize {
    let nix = RealNix::open(Config::new("/"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let roots = runtime.block_on(nix.roots()).unwrap();
    let graph = nix.graph().unwrap();
    let reached = graph.reached(roots.iter().filter_map(|root| graph.find(&root.path)));
    dead(&graph, &reached, &Uses::default()).len()
}
