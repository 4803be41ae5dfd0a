//! What a pod's programs wait for in a volume, beside the same in a plain bind mount of the store.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tokio::time::Instant;

use crate::closures::Closure;
use crate::line::OURS;
use crate::report::Row;
use crate::{Bench, alternatives};

const BIND: &str = "plain bind";
const PROGRAMS: u32 = 20;

impl Bench<'_> {
    pub async fn access(&mut self, closure: &Closure, rounds: usize) {
        let program = self.program();
        let shown = self.volume_at("closure", &closure.variants[0]);
        let runs = self.volume_at("program", &program);
        self.node.publish(&shown).await.unwrap();
        self.node.publish(&runs).await.unwrap();
        let bind = self.lab.target("plain");
        fs::create_dir(&bind).unwrap();
        mount_bind("/nix/store", &bind).unwrap();

        let ours = shown.target.join("store");
        let name = closure.size.name;
        let names: Vec<_> = closure.paths.iter().map(|path| path.file_name().unwrap()).collect();
        let at = |dir: &Path| names.iter().map(|name| dir.join(name)).collect::<Vec<_>>();
        // The first walk fills the caches of both.
        for round in 0..=rounds {
            for (dir, alternative) in [(&ours, OURS), (&bind, BIND)] {
                let paths = at(dir);
                let began = Instant::now();
                let files: Vec<PathBuf> = paths.iter().flat_map(|path| walk(path)).collect();
                let walked = began.elapsed();
                let began = Instant::now();
                let bytes: u64 = files.iter().map(|file| read(file)).sum();
                let took = began.elapsed();
                assert!(bytes > 0);
                if round > 0 {
                    self.report.add(Row::other("stat-walk", name, alternative), walked);
                    self.report.add(Row::other("open-and-read", name, alternative), took);
                }
            }
        }
        let program = Path::new(&program).file_name().unwrap();
        for round in 0..=rounds {
            for (dir, alternative) in [(&runs.target.join("store"), OURS), (&bind, BIND)] {
                let began = Instant::now();
                (0..PROGRAMS).for_each(|_| run(&dir.join(program)));
                if round > 0 {
                    let row = Row::other("exec", name, alternative);
                    self.report.add(row, began.elapsed() / PROGRAMS);
                }
            }
        }
        unmount(&bind, UnmountFlags::empty()).unwrap();
        fs::remove_dir(&bind).unwrap();
        self.node.unpublish(&runs).await.unwrap();
        self.node.unpublish(&shown).await.unwrap();
    }

    /// A program that is linked dynamically, with its loader and its library.
    fn program(&self) -> String {
        let text = r#"derivation {
            name = "program"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
            args = [ "-c" "mkdir $out; cp -L /lib*/ld-linux-*.so.* $out/loader; cp -L /lib/*-linux-gnu/libc.so.6 /bin/true $out/" ];
        }"#;
        let link = self.lab.path("program");
        let options = ["--option", "sandbox", "false", "--option", "substituters", ""];
        let args = ["--out-link", link.to_str().unwrap(), "-E", text];
        alternatives::run("nix-build", &[&options[..], &args].concat()).trim().to_owned()
    }
}

/// All regular files below, each entry looked at.
fn walk(at: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![at.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                dirs.push(path);
            } else if metadata.is_file() {
                found.push(path);
            }
        }
    }
    found
}

fn read(file: &Path) -> u64 {
    let mut open = File::open(file).unwrap();
    let (mut buffer, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        match open.read(&mut buffer).unwrap() {
            0 => return bytes,
            read => bytes += read as u64,
        }
    }
}

fn run(program: &Path) {
    let status = Command::new(program.join("loader"))
        .arg("--library-path")
        .arg(program)
        .arg(program.join("true"))
        .status();
    assert!(status.unwrap().success());
}
