//! A collector that is away, takes nothing or is not to be trusted: it costs a line in the log, and no call.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::collector::Collector;
use crate::lab;
use crate::lab::{
    Lab, NO_IDLE, Network, Node, assert_nothing_left, eventually, free_address, node_binary,
};
use crate::or_skip;

/// Of the process's end, of which three seconds are the last traces'.
const END: Duration = Duration::from_secs(8);

/// A node with a volume that is published and unpublished, and the log that it leaves.
async fn log_of_a_node(lab: &Lab, endpoint: &str) -> String {
    log_of(lab, lab.command("env"), endpoint).await
}

/// `env` is one, to which variables can be given.
async fn log_of(lab: &Lab, mut env: Command, endpoint: &str) -> String {
    // Many batches rather than one.
    env.arg("OTEL_BSP_SCHEDULE_DELAY=20").arg(node_binary());
    let settings = [NO_IDLE, &["--otlp-endpoint", endpoint]].concat();
    let mut node = lab.node_by(env, &settings).await;
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
    let log = log_of_a_node(&lab, &format!("http://{}", free_address())).await;
    assert_eq!(log.matches("traces can't be sent").count(), 1, "{log}");
    assert!(log.contains("lost_spans="), "{log}");
    let published: Vec<_> = log.lines().filter(|line| line.contains(" published")).collect();
    let have_ids =
        published.iter().all(|line| line.contains(" trace_id=") && line.contains(" span_id="));
    assert!(published.len() == 20 && have_ids, "{log}");
}

/// `<name>.pem` and `<name>.key` in the lab's directory: a certificate of 127.0.0.1 that nobody but itself vouches for.
fn make_certificate(lab: &Lab, name: &str) -> Result<PathBuf, String> {
    let config = lab.path(&format!("{name}.cnf"));
    let text = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = says\n\
                [name]\nCN = collector\n\
                [says]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
    fs::write(&config, text).unwrap();
    let (key, pem) = (lab.path(&format!("{name}.key")), lab.path(&format!("{name}.pem")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"])
        .arg(config)
        .args([Path::new("-keyout"), &key, Path::new("-out"), &pem])
        .output()
        .map_err(|e| format!("openssl: {e}"))?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(pem)
}

/// A command for a node to whom this certificate alone vouches for others.
fn who_trusts(lab: &Lab, certificate: &Path) -> Command {
    let mut env = lab.command("env");
    env.args(["-u", "SSL_CERT_DIR"]).arg(format!("SSL_CERT_FILE={}", certificate.display()));
    env
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_a_collector_gets_traces_if_it_is_vouched_for() {
    let lab = lab!();
    let trusted = or_skip!(make_certificate(&lab, "trusted"));
    let other = or_skip!(make_certificate(&lab, "other"));
    let collector = Collector::start_with(&lab, Some("trusted"));
    let url = collector.url();
    let log = log_of(&lab, who_trusts(&lab, &other), &url).await;
    assert_eq!(log.matches("traces can't be sent").count(), 1, "{log}");
    fs::remove_file(lab.path("node.log")).unwrap();
    let log = log_of(&lab, who_trusts(&lab, &trusted), &url).await;
    assert!(!log.contains("traces can't be sent") && !log.contains("were not sent"), "{log}");
    let (spans, _) = collector.spans();
    let published = spans.iter().filter(|span| span.name == "publish").count();
    assert_eq!(published, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_to_trust_there_are_no_traces_and_volumes_go_on() {
    let lab = lab!();
    let nothing = lab.path("nothing.pem");
    fs::write(&nothing, "").unwrap();
    let log = log_of(&lab, who_trusts(&lab, &nothing), "https://127.0.0.1:1").await;
    assert!(log.contains("can't send traces to https://127.0.0.1:1/: TLS: "), "{log}");
}

/// A machine from which nothing arrives at `NOBODY`, and a node in it that sends its traces there.
async fn node_without_answers(collector: &str) -> Result<(Network, Lab, Node), String> {
    let network = Network::new()?;
    let lab = network.host(1)?;
    Network::swallow(&lab, NOBODY);
    let resolver = lab.path("resolv.conf");
    let text = format!("nameserver {}\noptions timeout:30\n", Network::address(NOBODY));
    fs::write(&resolver, text).unwrap();
    lab.ok("mount", &["--bind", resolver.to_str().unwrap(), "/etc/resolv.conf"]);
    let mut env = lab.command("env");
    env.arg("OTEL_BSP_SCHEDULE_DELAY=20").arg(node_binary());
    let settings = [NO_IDLE, &["--otlp-endpoint", collector]].concat();
    let node = lab.node_by(env, &settings).await;
    let volume = lab.volume("v", &[("storePath", &lab.closure(&["--arg", "paths", "2"]))]);
    node.publish(&volume).await.unwrap();
    node.unpublish(&volume).await.unwrap();
    Ok((network, lab, node))
}

const NOBODY: u8 = 9;

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_resolver_nor_a_network_that_is_silent_holds_up_the_end() {
    let silent = format!("http://{}:4317", Network::address(NOBODY));
    for collector in ["http://collector.example:4317", &silent] {
        let (_network, _lab, mut node) = or_skip!(node_without_answers(collector).await);
        eventually("the warning", || node.log().contains("traces can't be sent"));
        #[expect(clippy::disallowed_methods, reason = "of a real process")]
        let began = Instant::now();
        assert_eq!(node.stop(), Some(0));
        assert!(began.elapsed() < END, "{collector}: {:?}", began.elapsed());
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_wait_for_the_last_traces() {
    let nobody = "http://collector.example:4317";
    let (_network, _lab, mut node) = or_skip!(node_without_answers(nobody).await);
    node.ask_to_stop();
    eventually("the last traces", || node.log().contains("sending the last traces"));
    node.ask_to_stop();
    assert_eq!(node.wait().code(), Some(1));
    let log = node.log();
    assert!(log.contains("second signal: exit at once"), "{log}");
    assert!(!log.contains("the last traces were not sent"), "{log}");
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
