//! docs/threats.md has who must never do what, the tests of it, and what each was seen to fail without.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who there is, and what each must never do; the order of the documentation.
const CELLS: &[(&str, &str)] = &[
    ("pod author", "read another tenant's private closure"),
    ("pod author", "read the node's files"),
    ("pod author", "write what is not its own"),
    ("pod author", "read the driver's token or environment"),
    ("pod author", "choose the driver's Nix settings"),
    ("pod author", "slow down others beyond its share"),
    ("evaluation", "read files of the node or the driver"),
    ("evaluation", "read other tenants' fetch caches"),
    ("evaluation", "read tokens"),
    ("evaluation", "open the CSI or admin socket"),
    ("evaluation", "run builds beyond its slots"),
    ("build", "see the service-account token"),
    ("build", "have the network"),
    ("build", "see other builds"),
    ("build", "outlive its cancellation"),
    ("node", "make other nodes accept what it didn't sign"),
    ("cache", "be a way to become root on a node"),
    ("laptop", "do more than speak Nix's protocol"),
    ("laptop", "import unsigned paths"),
    ("laptop", "set trusted settings"),
    ("operator", "be surprised by an insecure default"),
];

/// `Says` may be left out: text of how the tests fail.
const KEYS: [&str; 6] = ["Who", "Never", "Stops", "Weakened", "Test", "Says"];

/// One file of tests/weakened: a head of `Key: value` lines, and a patch.
struct Weakened {
    name: String,
    file: PathBuf,
    head: Vec<(String, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Weakened {
    fn all() -> Vec<Self> {
        let dir = fs::read_dir(root().join("tests/weakened")).unwrap();
        let mut files: Vec<_> = dir.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).unwrap();
            let (head, _) = text.split_once("\n\n").unwrap();
            let line = |line: &str| {
                let (key, value) = line.split_once(": ").unwrap();
                (key.to_owned(), value.to_owned())
            };
            let head = head.lines().map(line).collect();
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            Self { name, file, head }
        };
        files.into_iter().map(read).collect()
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.iter().filter(move |(is, _)| is == key).map(|(_, value)| &**value)
    }

    fn one<'a>(&'a self, key: &'a str) -> &'a str {
        let mut values = self.values(key);
        let value = values.next().unwrap_or_else(|| panic!("{} has no {key}", self.name));
        assert!(values.next().is_none(), "{} has more than one {key}", self.name);
        value
    }

    fn cell(&self) -> (&str, &str) {
        (self.one("Who"), self.one("Never"))
    }

    /// Test program, and the path in it.
    fn tests(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values("Test").map(|test| test.split_once(' ').unwrap())
    }
}

/// The table of docs/threats.md.
pub(crate) fn markdown() -> String {
    let all = Weakened::all();
    let head = "| who | must never | what is in the way | test | fails when |\n\
                | --- | --- | --- | --- | --- |\n";
    let of_cell = |cell| all.iter().filter(move |one| one.cell() == cell);
    let line = |one: &Weakened| {
        let (who, never) = one.cell();
        let tests: Vec<_> =
            one.tests().map(|(program, name)| format!("`{program}/{name}`")).collect();
        let cells = [who, never, one.one("Stops"), &tests.join(", "), one.one("Weakened")];
        format!("| {} |\n", cells.join(" | "))
    };
    CELLS
        .iter()
        .flat_map(|cell| of_cell(*cell))
        .map(line)
        .fold(head.to_owned(), |text, l| text + &l)
}

#[test]
fn each_cell_has_a_test_that_was_seen_to_bite() {
    let all = Weakened::all();
    let have: BTreeSet<_> = all.iter().map(Weakened::cell).collect();
    let cells: BTreeSet<_> = CELLS.iter().copied().collect();
    assert_eq!(have, cells);
    for one in &all {
        assert!(one.tests().next().is_some(), "{} has no Test", one.name);
        assert!(one.values("Says").count() < 2, "{} has more than one Says", one.name);
        for (key, _) in &one.head {
            assert!(KEYS.contains(&&**key), "{}: no {key}", one.name);
        }
        for (program, name) in one.tests() {
            let (module, function) = name.rsplit_once("::").unwrap();
            let file = root().join(format!("tests/{program}/{module}.rs"));
            let text = fs::read_to_string(&file).unwrap_or_else(|_| panic!("{}", file.display()));
            assert!(text.contains(&format!("fn {function}(")), "{}: no {name}", one.name);
        }
    }
}

/// `scripts/weakened.sh` applies them.
#[test]
fn what_takes_a_protection_away_fits_the_code() {
    for one in Weakened::all() {
        let mut git = Command::new("git");
        let output = git.args(["apply", "--check"]).arg(&one.file).current_dir(root()).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} is to be written anew: {text}", one.name);
    }
}
