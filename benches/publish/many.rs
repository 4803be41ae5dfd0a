//! Many volumes: a hundred at once, a restart with thousands, and what they take of memory.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use crate::closures::Closure;
use crate::lab::{Lab, Node, assert_all_ok, publish_all, unpublish_all, volumes};
use crate::report::{Report, Row};
use crate::{Bench, block_on};

const AT_ONCE: u32 = 100;
const NAME: &str = "publish-warm-100";

impl Bench<'_> {
    /// A hundred publishes, each with a connection of its own, and the same one after the other: the time of each.
    pub async fn at_once(&mut self, closure: &Closure, rounds: usize) {
        let name = closure.size.name;
        for _ in 0..rounds {
            let volumes: Vec<_> =
                (0..AT_ONCE).map(|n| self.numbered(closure, n as usize)).collect();
            let began = Instant::now();
            for volume in &volumes {
                self.node.publish(volume).await.unwrap();
            }
            let row = Row::other(NAME, name, "one after the other");
            self.report.add(row, began.elapsed() / AT_ONCE);
            assert_all_ok(&unpublish_all(self.node, &volumes).await);

            let began = Instant::now();
            let published = publish_all(self.node, &volumes).await;
            self.report.add(Row::ours(NAME, name), began.elapsed() / AT_ONCE);
            assert_all_ok(&published);
            let began = Instant::now();
            let unpublished = unpublish_all(self.node, &volumes).await;
            self.report.add(Row::ours("unpublish-100", name), began.elapsed() / AT_ONCE);
            assert_all_ok(&unpublished);
        }
    }
}

/// Nodes that are killed with `count` volumes present, and with none: from the next one's start until it is ready.
pub fn measure(lab: &Lab, closure: &Closure, count: usize, rounds: usize, report: &mut Report) {
    let name = closure.size.name;
    let source = [("storePath", &*closure.variants[0])];
    let present = volumes(lab, "present", &source, count);
    let mut node = lab.starting_node(&[]);
    block_on(lab, node.ready());
    let idle = memory(&node);
    report.add_figure(Row::ours("memory-idle", name).in_bytes(), idle);
    for _ in 0..rounds {
        node.kill();
        node = restart(lab, Row::other("restart", name, "no volumes"), report);
    }

    let before = memory(&node);
    let pid = node.pid().to_string();
    let spent = cpu(&pid);
    block_on(lab, async {
        for volume in &present {
            node.publish(volume).await.unwrap();
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let each = 1.0 / count as f64;
    report.add_figure(Row::ours("publish-warm-cpu", name), (cpu(&pid) - spent) * each);
    let grown = memory(&node) - before;
    report.add_figure(Row::ours("memory-per-volume", name).in_bytes(), grown * each);
    for _ in 0..rounds {
        node.kill();
        node = restart(lab, Row::ours("restart", name), report);
        let listed = block_on(lab, node.status()).volumes.len();
        assert_eq!(listed, count, "of the volumes that were there");
    }
    let taken_over = memory(&node);
    report.add_figure(Row::ours("memory-after-restart", name).in_bytes(), taken_over);
    block_on(lab, async {
        for volume in &present {
            node.unpublish(volume).await.unwrap();
        }
    });
}

fn restart(lab: &Lab, row: Row, report: &mut Report) -> Node {
    let began = Instant::now();
    let node = lab.starting_node(&[]);
    // More finely than `Node::ready` looks.
    block_on(lab, async {
        while node.probe().await != Ok(true) {
            tokio::task::yield_now().await;
        }
    });
    report.add(row, began.elapsed());
    node
}

/// Seconds that all threads of a process have run: the first number of their `schedstat`, in nanoseconds
/// (sched-stats of the kernel's documentation), which is exact of those that sleep.
pub fn cpu(pid: &str) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(spent.sum()).as_secs_f64()
}

fn memory(node: &Node) -> f64 {
    node.metric("process_resident_memory_bytes").unwrap()
}
