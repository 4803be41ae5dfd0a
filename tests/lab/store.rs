//! What a machine's store has, and what volumes show of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{Lab, Volume, names};

#[path = "../mount/compare.rs"]
mod compare;

/// All valid paths.
pub fn valid(lab: &Lab) -> BTreeSet<String> {
    lab.inside(|| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = Connection::open_with_flags("/nix/var/nix/db/db.sqlite", flags).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let mut rows = database.prepare("select path from ValidPaths").unwrap();
        let rows = rows.query_map((), |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    })
}

/// As Nix has registered it.
pub fn closure_of(lab: &Lab, root: &str) -> BTreeSet<String> {
    lab.ok("nix-store", &["-qR", root]).lines().map(str::to_owned).collect()
}

/// Every entry of the volume's store is the store's own, and there are no others than these paths.
pub fn assert_shows(lab: &Lab, volume: &Volume, paths: &BTreeSet<String>) {
    let shown = volume.target.join("store");
    lab.inside(|| {
        let name = |path: &String| path.strip_prefix("/nix/store/").unwrap().to_owned();
        assert_eq!(names(&shown), paths.iter().map(name).collect::<Vec<_>>());
        for path in paths {
            compare::same(Path::new(path), &shown.join(name(path)), true);
        }
    });
}
