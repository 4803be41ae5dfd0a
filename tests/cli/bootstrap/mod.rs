//! `nix-csi bootstrap`, from a machine's `/nix` to a store on another file system.

mod copies;
mod in_use;
mod kills;
mod programs;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::{Lab, closure_of, names};
use crate::program::{Said, run_in};

/// Files of some kilobytes and some of megabytes, in a dozen paths.
const CLOSURE: &[&str] =
    &["--arg", "paths", "12", "--arg", "files", "200", "--arg", "bytes", "12000000"];

/// A destination: a directory of the machine on a file system of its own.
struct Host(PathBuf);

impl Host {
    /// On ext4 of so many megabytes, on a loop device.
    fn new(lab: &Lab, megabytes: u64) -> Self {
        let (image, dir) = (lab.path("host.img"), lab.path("host"));
        let file = fs::File::create(&image).unwrap();
        file.set_len(megabytes << 20).unwrap();
        fs::create_dir(&dir).unwrap();
        let [image, shown] = [&image, &dir].map(|path| path.to_str().unwrap());
        // This machine's: not every root has one.
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0", image]).status();
        assert!(made.unwrap().success());
        lab.ok("mount", &["-o", "loop", image, shown]);
        Self(dir)
    }

    /// A directory in it, for one store.
    fn store(&self, lab: &Lab, name: &str) -> Self {
        let dir = self.0.join(name);
        lab.inside(|| fs::create_dir(&dir).unwrap());
        Self(dir)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A command in a mount namespace in which it is `/nix`, as in the pod.
    fn command(&self, lab: &Lab, program: &str, args: &[&str]) -> Command {
        let mut command = lab.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.args(["mount --bind \"$0\" /nix && exec \"$@\"", self.text(), program]).args(args);
        command
    }

    /// The standard output of one that must succeed.
    fn ok(&self, lab: &Lab, program: &str, args: &[&str]) -> String {
        let output = self.command(lab, program, args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// All that is valid is there, and is what was registered.
    fn assert_sound(&self, lab: &Lab) {
        let verify = ["--verify", "--check-contents"];
        let output = self.command(lab, "nix-store", &verify).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let bad = ["modified", "disappeared", "error"].iter().any(|word| said.contains(word));
        assert!(output.status.success() && !bad, "{said}");
    }

    /// The environment and nothing else, with no trace of how it came.
    fn assert_has_only(&self, lab: &Lab, environment: &str) {
        self.assert_sound(lab);
        let mut closure: Vec<_> = closure_of(lab, environment)
            .iter()
            .map(|path| path.strip_prefix("/nix/store/").unwrap().to_owned())
            .collect();
        closure.insert(0, ".links".to_owned());
        let valid = self.ok(lab, "nix-store", &["-qR", environment]);
        assert_eq!(valid.lines().count(), closure.len() - 1);
        assert_eq!(lab.inside(|| names(&self.at("store"))), closure);
        assert_eq!(
            lab.inside(|| names(&self.at("var/nix/gcroots/nix-csi/bootstrap"))),
            ["current"]
        );
        assert_eq!(self.link(lab, "current"), environment);
        assert_eq!(self.result(lab), environment);
    }

    fn link(&self, lab: &Lab, name: &str) -> String {
        self.leads(lab, &format!("var/nix/gcroots/nix-csi/bootstrap/{name}"))
    }

    fn result(&self, lab: &Lab) -> String {
        self.leads(lab, "var/result")
    }

    /// Where a link leads; empty: there is none.
    fn leads(&self, lab: &Lab, link: &str) -> String {
        let target = lab.inside(|| fs::read_link(self.at(link)));
        target.map(|target| target.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// `nix-csi bootstrap` into it.
    fn bootstrap(&self, lab: &Lab, more: &[&str]) -> Said {
        run_in(lab, ".", &[&["bootstrap", "--to", self.text()], more].concat())
    }

    /// The same, not waited for.
    fn bootstrapping(&self, lab: &Lab, more: &[&str]) -> Command {
        let mut command = lab.command(env!("CARGO_BIN_EXE_nix-csi"));
        command.args(["bootstrap", "--to", self.text()]).args(more);
        command
    }
}

/// A closure of the machine's, and another one that shares most of its paths with it.
fn environment(lab: &Lab, variant: &str) -> String {
    lab.closure(&[CLOSURE, &["--argstr", "variant", variant]].concat())
}

fn copied(environment: &str, paths: usize) -> String {
    format!("{environment} is in place: {paths} paths were copied")
}

fn entries(lab: &Lab, dir: &Path) -> usize {
    lab.inside(|| fs::read_dir(dir).map_or(0, Iterator::count))
}
