//! A control group for a machine, as a pod has one: the kernel weighs groups against each other, and in each
//! its processes. Without one it weighs sessions (autogroups of sched(7)), and each build is one.

use std::fs;
use std::path::PathBuf;

use super::Lab;
use super::machine::{unique, wait_for};

/// To be made before the machine, whose end comes first.
pub struct Group(PathBuf);

impl Group {
    /// `None`: here are none to be made.
    pub fn new() -> Option<Self> {
        // Of the first version, and of the second.
        let first = PathBuf::from("/sys/fs/cgroup/cpu");
        let second = PathBuf::from("/sys/fs/cgroup");
        let has_cpu = |text: String| text.split_whitespace().any(|name| name == "cpu");
        let root = if first.join("cpu.shares").try_exists().unwrap_or_default() {
            first
        } else {
            let given = fs::read_to_string(second.join("cgroup.subtree_control"));
            given.is_ok_and(has_cpu).then_some(second)?
        };
        let dir = root.join(format!("nix-csi-lab-{}-{}", std::process::id(), unique()));
        fs::create_dir(&dir).ok()?;
        Some(Self(dir))
    }

    /// Takes what runs in the machine, with all that it starts from now on.
    pub fn take(&self, lab: &Lab) {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let machine = namespace(&lab.init().to_string()).unwrap();
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let pids = names.filter_map(|name| name.into_string().ok());
        for pid in pids.filter(|pid| pid.bytes().all(|c| c.is_ascii_digit())) {
            if namespace(&pid).as_ref() == Some(&machine) {
                // It may have ended since.
                let _ = fs::write(self.0.join("cgroup.procs"), &pid);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait_for("the control group to be empty", || fs::remove_dir(&self.0).is_ok());
    }
}
