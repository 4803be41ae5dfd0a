//! A control group for machines and their client, as a pod has one: the kernel weighs groups against each other, and in each
//! its processes. Without one it weighs sessions (autogroups of sched(7)), and each build is one.

use std::fs;
use std::path::PathBuf;

use super::machine::{unique, wait_for};

/// To be made before the machine, whose end comes first. Who makes it is in it, and so is what it starts: not
/// for tests that others run beside.
pub struct Group {
    dir: PathBuf,
    /// Where this process was.
    before: PathBuf,
}

impl Group {
    /// `None`: here are none to be made.
    pub fn new() -> Option<Self> {
        // Of the first version, and of the second.
        let first = PathBuf::from("/sys/fs/cgroup/cpu");
        let second = PathBuf::from("/sys/fs/cgroup");
        let is_first = first.join("cpu.shares").try_exists().unwrap_or_default();
        let root = if is_first { first } else { second };
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let wanted = if is_first { "cpu" } else { "" };
            controllers.split(',').any(|name| name == wanted).then_some(path)
        })?;
        let before = root.join(own.trim_start_matches('/'));
        let dir = root.join(format!("nix-csi-lab-{}-{}", std::process::id(), unique()));
        fs::create_dir(&dir).ok()?;
        let group = Self { dir, before };
        let weighs = ["cpu.shares", "cpu.weight"].map(|file| group.dir.join(file).try_exists());
        let joined = fs::write(group.dir.join("cgroup.procs"), "0").is_ok();
        (joined && weighs.into_iter().any(Result::unwrap_or_default)).then_some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::write(self.before.join("cgroup.procs"), "0").unwrap();
        wait_for("the control group to be empty", || fs::remove_dir(&self.dir).is_ok());
    }
}
