//! The program, run in a machine as a person would.

use std::process::Output;

use crate::lab::{Lab, Node};

/// How it ended and what it said, with the machine's directory as `LAB`.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn said(lab: &Lab, output: &Output) -> Said {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.replace(lab.dir.path().to_str().unwrap(), "LAB")
    };
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Said { code: output.status.code(), out, err }
}

/// Runs `nix-csi` with these arguments in a directory of the machine.
pub fn run_in(lab: &Lab, directory: &str, args: &[&str]) -> Said {
    let mut command = lab.command("env");
    command.args(["-C", lab.path(directory).to_str().unwrap()]);
    let output = command.arg(env!("CARGO_BIN_EXE_nix-csi")).args(args).output().unwrap();
    said(lab, &output)
}

/// The same, as a client of `node`.
pub fn client(lab: &Lab, node: &Node, directory: &str, args: &[&str]) -> Said {
    let (command, rest) = args.split_first().unwrap();
    let [csi, admin] = [&node.csi, &node.admin].map(|path| path.to_str().unwrap());
    let mut all = vec![*command];
    // A subcommand's options come after it.
    let (before, after) = if *command == "builds" { (rest, &[][..]) } else { (&[][..], rest) };
    all.extend(before);
    all.extend(["--admin-endpoint", admin]);
    if *command != "status" {
        all.extend(["--endpoint", csi]);
    }
    all.extend(after);
    run_in(lab, directory, &all)
}

impl Said {
    /// The one line of a failure.
    pub fn failure(&self) -> &str {
        assert_eq!((self.code, &*self.out), (Some(1), ""), "{self:?}");
        let line = self.err.strip_prefix("nix-csi: ").and_then(|l| l.strip_suffix('\n'));
        line.filter(|l| !l.contains('\n')).unwrap_or_else(|| panic!("one line: {self:?}"))
    }

    /// The standard output of a success.
    pub fn success(&self) -> &str {
        assert_eq!((self.code, &*self.err), (Some(0), ""), "{self:?}");
        self.out.trim_end()
    }
}
