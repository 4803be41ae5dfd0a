//! What the kernel says: of the machine, of this process's limits, mounts and children.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::clean::nix_conf;
use super::{MOST, said};
use crate::model::System;
use crate::read::{SMALL, up_to};

/// Files of a cgroup (version 2) that say what it may have and what it had.
const CGROUP: [&str; 13] = [
    "cpu.max",
    "cpu.stat",
    "cpu.pressure",
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.peak",
    "memory.events",
    "memory.pressure",
    "pids.max",
    "pids.current",
    "io.max",
    "io.pressure",
];
const CGROUPS: &str = "/sys/fs/cgroup";

/// What is told of a process at [`versions`] and [`processes`].
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// As `nix: Nix 2.34`.
    pub lines: Vec<String>,
    /// Whose children are shown; those of all nix-csi if there is none.
    pub of: Option<u32>,
}

fn read(path: &Path, most: usize) -> Result<String, String> {
    let bytes = up_to(path, most).or_else(|error| said(&format!("{}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub fn versions(facts: &Facts) -> String {
    let uname = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let mut text = format!("nix-csi: {}\n", env!("CARGO_PKG_VERSION"));
    for line in &facts.lines {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "kernel: {} {} {}\nsystem: {}",
        part(uname.release()),
        part(uname.version()),
        part(uname.machine()),
        System::current(),
    );
    for file in ["/proc/uptime", "/proc/loadavg"] {
        let said = read(Path::new(file), SMALL).unwrap_or_else(|error| error);
        let _ = writeln!(text, "{file}: {}", said.trim_end());
    }
    text
}

pub fn os_release() -> Result<String, String> {
    read(Path::new("/etc/os-release"), SMALL)
}

pub fn mounts() -> Result<String, String> {
    read(Path::new("/proc/self/mountinfo"), MOST + 1)
}

/// Of the process and of its cgroup.
pub fn limits() -> Result<String, String> {
    let mut text = section("/proc/self/limits", &read(Path::new("/proc/self/limits"), SMALL)?);
    let cgroup = read(Path::new("/proc/self/cgroup"), SMALL)?;
    text += &section("/proc/self/cgroup", &cgroup);
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    // In a container's own cgroup namespace it is the root, whose files are the container's.
    let own = Path::new(CGROUPS).join(own.unwrap_or_default().trim_start_matches("../"));
    let files = CGROUP.map(|name| own.join(name));
    // A root has few of them, and no kernel has all.
    let there = files.iter().filter_map(|file| Some((file, read(file, SMALL).ok()?)));
    let there: Vec<_> =
        there.map(|(file, value)| section(&file.display().to_string(), &value)).collect();
    if there.is_empty() {
        let none = "(no limits can be read here: it is not mounted, or of version 1)";
        text += &section(&own.display().to_string(), none);
    }
    text += &there.concat();
    text += &section("/proc/meminfo", &read(Path::new("/proc/meminfo"), SMALL)?);
    Ok(text)
}

fn section(name: &str, text: &str) -> String {
    format!("== {name}\n{}\n", text.trim_end())
}

/// Bytes and inodes of the file systems that these paths are in.
pub fn disk(paths: &[PathBuf]) -> String {
    let mut text = "path\tbytes\tfree\tavailable\tinodes\tfree inodes\n".to_owned();
    for path in paths {
        let shown = path.display();
        let _ = match rustix::fs::statvfs(path) {
            Ok(of) => {
                let bytes = |blocks: u64| blocks.saturating_mul(of.f_frsize);
                let (all, free, left) = (bytes(of.f_blocks), bytes(of.f_bfree), bytes(of.f_bavail));
                writeln!(text, "{shown}\t{all}\t{free}\t{left}\t{}\t{}", of.f_files, of.f_ffree)
            }
            Err(error) => writeln!(text, "{shown}\t{error}"),
        };
    }
    text
}

/// A nix.conf without its secrets, or why there is none.
pub fn nix_conf_file(path: &Path) -> String {
    let shown = path.display();
    let Ok(about) = fs::metadata(path) else {
        return section(&shown.to_string(), "(it is not there)");
    };
    if !about.is_file() {
        return section(&shown.to_string(), "(it is no file)");
    }
    let text = read(path, MOST).map(|text| nix_conf(&text));
    section(&shown.to_string(), &text.unwrap_or_else(|error| format!("({error})")))
}

struct Process {
    parent: u32,
    line: String,
    is_ours: bool,
}

/// A process and all below it. Arguments are others' words, and not shown but for a subcommand.
pub fn processes(of: Option<u32>) -> Result<String, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").or_else(|error| said(&error))? {
        let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(process) = process(pid)
        {
            all.insert(pid, process);
        }
    }
    let mut text = "pid\tparent\tstate\tthreads\tresident\twhat\n".to_owned();
    let roots: Vec<_> = match of {
        Some(pid) => vec![pid],
        None => all.iter().filter(|(_, one)| one.is_ours).map(|(pid, _)| *pid).collect(),
    };
    for (pid, one) in &all {
        let mut above = Some(*pid);
        // A pid that was given anew meanwhile could make a ring.
        for _ in 0..all.len() {
            match above {
                Some(at) if roots.contains(&at) => {
                    text += &one.line;
                    break;
                }
                Some(at) => above = all.get(&at).map(|process| process.parent),
                None => break,
            }
        }
    }
    Ok(text)
}

/// `None`: it has ended.
fn process(pid: u32) -> Option<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let status = read(&dir.join("status"), SMALL).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim().to_owned())
    };
    let arguments = read(&dir.join("cmdline"), SMALL).ok()?;
    let mut arguments = arguments.split('\0');
    let program = arguments.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let is_word = |word: &&str| word.bytes().all(|c| c.is_ascii_lowercase() || c == b'-');
    let subcommand = arguments.next().filter(is_word).unwrap_or_default();
    let name = field("Name")?;
    let visible: String = format!("{name} {program} {subcommand}")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    let parent = field("PPid")?.parse().ok()?;
    let line = format!(
        "{pid}\t{parent}\t{}\t{}\t{}\t{}\n",
        field("State")?,
        field("Threads")?,
        field("VmRSS").unwrap_or_default(),
        visible.trim_end(),
    );
    Some(Process { parent, line, is_ours: name == "nix-csi" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_it_has_to() {
        let text = versions(&Facts { lines: vec!["nix: Nix 2.8".to_owned()], of: None });
        assert!(text.contains("\nnix: Nix 2.8\nkernel: ") && text.contains("\nsystem: "), "{text}");
        let text = limits().unwrap();
        assert!(text.contains("Max open files") && text.contains("\n== /sys/fs/cgroup"), "{text}");
        assert!(mounts().unwrap().contains(" / "));
        let lines = disk(&["/".into(), "/none".into()]);
        let [_, root, none] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        assert!(
            root.split('\t').count() == 6 && none.starts_with("/none\tNo such file"),
            "{lines}"
        );
    }

    #[test]
    fn a_process_and_what_is_below_it_are_shown_without_arguments() {
        let own = std::process::id();
        let text = processes(Some(own)).unwrap();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert!(lines.iter().any(|line| line.starts_with(&format!("{own}\t"))), "{text}");
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
        assert!(!lines.iter().any(|line| line.starts_with(&format!("{parent}\t"))), "{text}");
    }

    #[test]
    fn a_nix_conf_is_shown_without_secrets_and_what_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("nix.conf");
        fs::write(&conf, "cores = 2\naccess-tokens = a=b\n").unwrap();
        let shown = nix_conf_file(&conf);
        assert!(shown.ends_with("cores = 2\naccess-tokens = ***\n"), "{shown}");
        assert!(nix_conf_file(&dir.path().join("none")).ends_with("(it is not there)\n"));
        assert!(nix_conf_file(dir.path()).ends_with("(it is no file)\n"));
    }
}
