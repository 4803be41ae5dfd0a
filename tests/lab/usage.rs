//! What the processes of a machine cost while something goes on.

use std::collections::HashMap;
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
#[derive(Debug, Clone, Copy, Default)]
pub struct Peak {
    pub processes: usize,
    /// Proportional: what is shared counts once.
    pub pss: u64,
    pub rss: u64,
    /// Without what was used after the last look at a process.
    pub cpu_seconds: f64,
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
            let before = cpu_of_all(&proc);
            while !stopped.load(Ordering::Relaxed) {
                let now = look(&proc, &mut cpu);
                peak.processes = peak.processes.max(now.processes);
                peak.pss = peak.pss.max(now.pss);
                peak.rss = peak.rss.max(now.rss);
                std::thread::park_timeout(EVERY);
            }
            let used = |(pid, ticks): (&u32, &u64)| ticks - before.get(pid).unwrap_or(&0);
            #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
            let used = cpu.iter().map(used).sum::<u64>() as f64;
            peak.cpu_seconds = used / TICKS;
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

fn pids(proc: &Path) -> impl Iterator<Item = u32> {
    let names = fs::read_dir(proc).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok())
}

fn cpu_of_all(proc: &Path) -> HashMap<u32, u64> {
    pids(proc).filter_map(|pid| Some((pid, ticks(&proc.join(pid.to_string()))?))).collect()
}

/// Any process may have ended since it was listed.
fn look(proc: &Path, cpu: &mut HashMap<u32, u64>) -> Peak {
    let mut sum = Peak::default();
    for pid in pids(proc) {
        let dir = proc.join(pid.to_string());
        let Some(ticks) = ticks(&dir) else { continue };
        cpu.insert(pid, ticks);
        sum.processes += 1;
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

/// utime and stime.
fn ticks(dir: &Path) -> Option<u64> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
