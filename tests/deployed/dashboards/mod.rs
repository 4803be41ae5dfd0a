//! Grafana's dashboards: written here, rendered to `dashboards/*.json`.

mod actors;
mod board;
mod builds;
mod checks;
mod disk;
mod mounts;
mod overview;
mod panel;

use std::fs;

use serde_json::Value;

use super::manifests::{below, root};
use board::Dashboard;

/// In the order in which to look at them.
const ALL: [fn() -> Dashboard; 5] =
    [overview::dashboard, mounts::dashboard, builds::dashboard, disk::dashboard, actors::dashboard];

/// File names and what they hold.
fn rendered() -> Vec<(String, Value)> {
    let all = ALL.iter().map(|dashboard| dashboard());
    all.map(|dashboard| (format!("{}.json", dashboard.name), dashboard.render())).collect()
}

/// `dashboards/` has what is rendered, and nothing else; it is written there when it is to be renewed.
pub(crate) fn assert_current() {
    let dir = root().join("dashboards");
    let rendered = rendered();
    let text = |board: &Value| serde_json::to_string_pretty(board).unwrap() + "\n";
    if std::env::var_os("NIX_CSI_RENEW_DOCS").is_some() {
        for file in below(&dir, "json") {
            fs::remove_file(file).unwrap();
        }
        for (name, board) in &rendered {
            fs::write(dir.join(name), text(board)).unwrap();
        }
    }
    let mut names: Vec<_> = rendered.iter().map(|(name, _)| dir.join(name)).collect();
    names.sort();
    let mut files = below(&dir, "json");
    files.sort();
    assert_eq!(files, names, "`make docs` writes dashboards/");
    for (name, board) in &rendered {
        let is = fs::read_to_string(dir.join(name)).unwrap();
        assert!(is == text(board), "dashboards/{name} is not current: run `make docs`");
    }
}
