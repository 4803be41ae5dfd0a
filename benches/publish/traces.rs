//! What it costs to send traces.

use tokio::time::Instant;

use crate::block_on;
use crate::closures::Closure;
use crate::collector::Collector;
use crate::lab::Lab;
use crate::report::{Report, Row};

/// Nodes that take turns, so that noise hits both alike.
const TURNS: usize = 4;
/// Publishes of a node that has just started and is not measured yet.
const FIRST: usize = 5;

/// Warm publishes by nodes that send all their traces, and by others that have no collector.
pub fn measure(lab: &Lab, closure: &Closure, warm: usize, report: &mut Report) {
    let collector = Collector::start(lab);
    let url = collector.url();
    for _ in 0..TURNS {
        for (who, settings) in
            [("without traces", &[][..]), ("traces sent", &["--otlp-endpoint", &url])]
        {
            let mut node = lab.starting_node(settings);
            let took = block_on(lab, async {
                node.ready().await;
                let mut took = Vec::new();
                for _ in 0..FIRST + warm.div_ceil(TURNS) {
                    let volume = lab.volume("traced", &[("storePath", &closure.variants[0])]);
                    let began = Instant::now();
                    node.publish(&volume).await.unwrap();
                    took.push(began.elapsed());
                    node.unpublish(&volume).await.unwrap();
                }
                took.split_off(FIRST)
            });
            // Its end sends what it has left.
            assert_eq!(node.stop(), Some(0));
            for took in took {
                report.add(Row::other("publish-warm-traces", closure.size.name, who), took);
            }
        }
    }
    assert!(!collector.spans().0.is_empty(), "no trace was sent");
}
