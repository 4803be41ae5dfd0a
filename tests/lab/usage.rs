//! What the processes of a machine cost while something goes on.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Lab;

const EVERY: Duration = Duration::from_millis(250);
/// Of `/proc/<pid>/stat`, a second.
const TICKS: f64 = 100.0;

/// The most that was seen at once, and what was used up.
#[derive(Debug, Clone, Default)]
pub struct Peak {
    pub processes: usize,
    /// Proportional: what is shared counts once.
    pub pss: u64,
    pub rss: u64,
    /// Seconds by program, without what was used after the last look at a process.
    pub cpu: BTreeMap<String, f64>,
}

/// Looks until it is asked.
pub struct Usage {
    stop: Arc<AtomicBool>,
    looks: JoinHandle<Peak>,
}

impl Usage {
    pub fn of(lab: &Lab) -> Self {
        let (proc, stop) = (lab.proc(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let looks = std::thread::spawn(move || {
            let (mut peak, mut cpu) = (Peak::default(), HashMap::new());
            look(&proc, &mut cpu);
            let before = std::mem::take(&mut cpu);
            while !stopped.load(Ordering::Relaxed) {
                let now = look(&proc, &mut cpu);
                peak.processes = peak.processes.max(now.processes);
                peak.pss = peak.pss.max(now.pss);
                peak.rss = peak.rss.max(now.rss);
                std::thread::park_timeout(EVERY);
            }
            for (pid, (program, seconds)) in cpu {
                let before = before.get(&pid).map_or(0.0, |(_, seconds)| *seconds);
                *peak.cpu.entry(program).or_default() += seconds - before;
            }
            peak
        });
        Self { stop, looks }
    }

    pub fn stop(self) -> Peak {
        self.stop.store(true, Ordering::Relaxed);
        self.looks.thread().unpark();
        self.looks.join().unwrap()
    }
}

/// Any process may have ended since it was listed.
fn look(proc: &Path, cpu: &mut HashMap<u32, (String, f64)>) -> Peak {
    let names = fs::read_dir(proc).unwrap().map(|entry| entry.unwrap().file_name());
    let pids: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    let mut sum = Peak { processes: pids.len(), ..Peak::default() };
    for pid in pids {
        let dir = proc.join(pid.to_string());
        let Some(used) = used(&dir) else { continue };
        cpu.insert(pid, used);
        let memory = fs::read_to_string(dir.join("smaps_rollup")).unwrap_or_default();
        let kib = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or_default()
        };
        sum.pss += kib("Pss:") << 10;
        sum.rss += kib("Rss:") << 10;
    }
    sum
}

/// Name, and utime and stime.
fn used(dir: &Path) -> Option<(String, f64)> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks = |n: usize| fields.get(n)?.parse::<u32>().ok();
    let name = head.split_once('(')?.1.to_owned();
    Some((name, f64::from(ticks(11)? + ticks(12)?) / TICKS))
}
