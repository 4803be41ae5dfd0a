//! A collector that is away, or takes nothing: it costs a line in the log, and no call.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::collector::unused_address;
use crate::lab;
use crate::lab::{Lab, NO_IDLE, assert_nothing_left, node_binary};

/// Of the process's end, of which three seconds are the last traces'.
const END: Duration = Duration::from_secs(8);

/// A node with a volume that is published and unpublished, and the log that it leaves.
async fn log_of_a_node(lab: &Lab, endpoint: &str) -> String {
    // Many batches rather than one.
    let mut command = lab.command("env");
    command.arg("OTEL_BSP_SCHEDULE_DELAY=20").arg(node_binary());
    let settings = [NO_IDLE, &["--otlp-endpoint", endpoint]].concat();
    let mut node = lab.node_by(command, &settings).await;
    let closure = lab.closure(&["--arg", "paths", "2"]);
    for number in 0..20 {
        let volume = lab.volume(&format!("v{number}"), &[("storePath", &closure)]);
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
    }
    assert_nothing_left(lab);
    #[expect(clippy::disallowed_methods, reason = "of a real process")]
    let began = Instant::now();
    assert_eq!(node.stop(), Some(0));
    assert!(began.elapsed() < END, "{:?}", began.elapsed());
    node.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_one_warning() {
    let lab = lab!();
    let log = log_of_a_node(&lab, &format!("http://{}", unused_address())).await;
    assert_eq!(log.matches("traces can't be sent").count(), 1, "{log}");
    assert!(log.contains("lost_spans="), "{log}");
    let published: Vec<_> = log.lines().filter(|line| line.contains(" published")).collect();
    let have_ids =
        published.iter().all(|line| line.contains(" trace_id=") && line.contains(" span_id="));
    assert!(published.len() == 20 && have_ids, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_tls() {
    let lab = lab!();
    let log = log_of_a_node(&lab, &format!("https://{}", unused_address())).await;
    assert_eq!(log.matches("traces can't be sent").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_holds_up_nothing() {
    let lab = lab!();
    // The kernel takes the connection, and nobody reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let log = log_of_a_node(&lab, &format!("http://{address}")).await;
    assert!(
        log.contains("the last traces were not sent") || log.contains("traces can't be sent"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_there_are_no_ids() {
    let lab = lab!();
    let mut node = lab.node(&[]).await;
    let closure = lab.closure(&["--arg", "paths", "2"]);
    node.publish(&lab.volume("v", &[("storePath", &closure)])).await.unwrap();
    assert_eq!(node.stop(), Some(0));
    assert!(node.log().contains("published") && !node.log().contains("trace_id"), "{}", node.log());
}
