//! The closures that are published.

use std::fs;
use std::path::PathBuf;

use crate::lab::Lab;

#[derive(Clone, Copy)]
pub struct Size {
    pub name: &'static str,
    pub paths: usize,
    files: usize,
    bytes: u64,
    /// Files have next to nothing in them.
    tiny: bool,
}

/// `sparse` has as many paths as `large` and next to no files: what differs between the two is the
/// cost of files.
/// `crowded` is a machine's whole system: very many small files.
pub const SIZES: [Size; 5] = [
    Size { name: "small", paths: 5, files: 50, bytes: 500_000, tiny: false },
    Size { name: "medium", paths: 60, files: 5_000, bytes: 200_000_000, tiny: false },
    Size { name: "large", paths: 300, files: 60_000, bytes: 2_000_000_000, tiny: false },
    Size { name: "sparse", paths: 300, files: 300, bytes: 2_000_000, tiny: false },
    Size { name: "crowded", paths: 2_443, files: 375_000, bytes: 0, tiny: true },
];

pub struct Closure {
    pub size: Size,
    /// Roots of closures that differ in the root alone: each can be published cold once.
    pub variants: Vec<String>,
    /// All store paths of the first one.
    pub paths: Vec<PathBuf>,
}

impl Closure {
    /// Small enough to read all of it again and again.
    pub fn is_walked(&self) -> bool {
        matches!(self.size.name, "small" | "medium")
    }
}

/// Builds `variants` closures and keeps them from collectors.
pub fn build(lab: &Lab, size: Size, variants: usize) -> Closure {
    let expression = lab.path("closures.nix");
    fs::write(&expression, include_str!("../../tests/data/closures.nix")).unwrap();
    let Size { name, paths, files, bytes, tiny } = size;
    let all = format!(
        "map (variant: import {} {{ paths = {paths}; files = {files}; bytes = {bytes}; tiny = {tiny}; \
         seed = \"{name}\"; tail = 0; variant = toString variant; }}) (builtins.genList (i: i) {variants})",
        expression.display()
    );
    let link = lab.path(name);
    let options = ["--option", "sandbox", "false", "--option", "substituters", "", "--cores", "1"];
    let args = ["--max-jobs", "2", "--out-link", link.to_str().unwrap(), "-E", &all];
    let built = lab.ok("nix-build", &[&options[..], &args].concat());
    let variants: Vec<String> = built.lines().map(str::to_owned).collect();
    let paths = lab.ok("nix-store", &["--query", "--requisites", &variants[0]]);
    Closure { size, paths: paths.lines().map(PathBuf::from).collect(), variants }
}
