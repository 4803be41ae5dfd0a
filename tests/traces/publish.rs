//! Whole traces of calls.

use std::fs;

use crate::collector::Collector;
use crate::lab;
use crate::lab::{Gate, Lab, Node, Volume, until};
use crate::spans::{Span, named, path, trace_of, tree};

const RPC: &str = "csi.v1.Node/NodePublishVolume";
/// In everything that is secret, and in nothing else.
const MARK: &str = "hunter2hunter2";
/// As W3C's specification has it for an example.
const CALLERS: &str = "0af7651916cd43dd8448eb211c80319c";

fn of_pod(mut volume: Volume) -> Volume {
    for (key, value) in [
        ("pod.name", "shop-0"),
        ("pod.namespace", "shop"),
        ("pod.uid", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        ("serviceAccount.name", "default"),
        ("ephemeral", "true"),
    ] {
        volume.attributes.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
    }
    volume
}

/// One derivation that is built at once.
fn built(name: &str) -> String {
    format!(
        r#"derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh";
           args = [ "-c" "echo {name} > $out" ]; }}"#
    )
}

async fn traced_node(lab: &Lab, collector: &Collector, extra: &[&str]) -> Node {
    let url = collector.url();
    lab.node(&[&["--otlp-endpoint", &url, "--log-format", "json"], extra].concat()).await
}

fn volume_is(volume: &Volume) -> (&'static str, &str) {
    ("nixcsi.volume", &volume.id)
}

fn lines_of<'a>(log: &'a str, trace: &[Span]) -> Vec<&'a str> {
    let id = format!("\"trace_id\":\"{}\"", trace[0].trace);
    log.lines().filter(|line| line.contains(&id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_one_trace_down_to_its_processes() {
    let lab = lab!();
    let collector = Collector::start(&lab);
    let cache = lab.cache().await;
    let fetched = lab.unrooted(&["--arg", "paths", "3"]);
    cache.upload(&lab, &fetched);
    lab.ok("nix-store", &["--gc"]);
    let substituters = cache.substituters();
    let caches = [
        "--nix-option",
        &*substituters,
        "--nix-option",
        "require-sigs=false",
        "--otel-resource-attributes",
        "k8s.node.name=one, k8s.namespace.name = csi",
    ];
    let mut node = traced_node(&lab, &collector, &caches).await;

    let build = of_pod(lab.volume("build", &[("nixExpr", &built("shop"))]));
    let mut request = build.request();
    let netrc = format!("machine 127.0.0.1 login reader password {MARK}\n");
    request.secrets.insert("netrc".to_owned(), netrc);
    node.publish_request(request).await.unwrap();
    node.unpublish(&build).await.unwrap();
    let fetch = lab.volume("fetch", &[("storePath", &fetched)]);
    node.publish(&fetch).await.unwrap();
    assert_eq!(node.stop(), Some(0));
    let (log, (spans, text)) = (node.log(), collector.spans());

    let trace = trace_of(&spans, "publish", volume_is(&build));
    println!("{}", tree(&trace));
    let rpc = &trace[0];
    assert_eq!((&*rpc.name, &*rpc.parent, rpc.kind, rpc.status), (RPC, "", 2, 0));
    for (key, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "csi.v1.Node"),
        ("rpc.method", "NodePublishVolume"),
        ("rpc.grpc.status_code", "0"),
    ] {
        assert_eq!(rpc.attributes[key], value, "{key}");
    }
    let publish = named(&trace, "publish");
    for (key, value) in [
        ("k8s.pod.name", "shop-0"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.uid", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
    ] {
        assert_eq!(publish.attributes[key], value, "{key}");
    }
    for (key, value) in [
        ("service.name", "nix-csi"),
        ("service.instance.id", "lab"),
        ("host.name", "lab"),
        ("k8s.node.name", "one"),
        ("k8s.namespace.name", "csi"),
    ] {
        assert_eq!(rpc.resource[key], value, "{key}");
    }
    for (name, expected) in [
        ("evaluate", "publish > resolve > realise > evaluate"),
        ("build", "publish > resolve > realise > build"),
        ("nix-store", "publish > resolve > realise > build > nix-store"),
        ("view", "publish > resolve > view"),
        ("make view", "publish > resolve > view > make view"),
        ("mount", "publish > mount"),
    ] {
        assert_eq!(path(&trace, name), format!("{RPC} > {expected}"));
    }
    let evaluator = trace.iter().find(|span| span.parent == named(&trace, "evaluate").id).unwrap();
    for process in [evaluator, named(&trace, "nix-store")] {
        assert_eq!(process.attributes["process.exit.code"], "0");
        assert!(process.attributes["process.pid"].parse::<u32>().is_ok());
    }
    let made = named(&trace, "build");
    assert_eq!(made.attributes["nixcsi.origin"], "built");
    assert!(made.attributes["nixcsi.store_path"].ends_with("-shop"));
    assert!(lines_of(&log, &trace).iter().any(|line| line.contains("published")), "{log}");

    let trace = trace_of(&spans, "unpublish", volume_is(&build));
    assert_eq!(path(&trace, "unmount"), "csi.v1.Node/NodeUnpublishVolume > unpublish > unmount");
    let trace = trace_of(&spans, "publish", volume_is(&fetch));
    let expected = format!("{RPC} > publish > resolve > realise > fetch > nix-store");
    assert_eq!(path(&trace, "nix-store"), expected);
    assert_eq!(named(&trace, "fetch").attributes["nixcsi.origin"], "substituted");
    assert!(!text.contains(MARK), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_the_spans_status_as_the_caller_reads_it() {
    let lab = lab!();
    let collector = Collector::start(&lab);
    let mut node = traced_node(&lab, &collector, &["--log", "warn"]).await;
    let secret = format!("https://reader:{MARK}@127.0.0.1:1/x.tar?token={MARK}");
    let thrown = lab.volume("thrown", &[("nixExpr", r#"throw "not this one""#)]);
    let away = lab.volume("away", &[("flakeRef", &secret)]);
    let mut told = Vec::new();
    for volume in [&thrown, &away] {
        told.push(node.publish(volume).await.unwrap_err());
    }
    assert_eq!(node.stop(), Some(0));
    let (spans, text) = collector.spans();
    for (volume, status) in [&thrown, &away].into_iter().zip(&told) {
        let trace = trace_of(&spans, "publish", volume_is(volume));
        assert_eq!(
            (trace[0].status, &*trace[0].message),
            (2, status.message()),
            "{}",
            tree(&trace)
        );
        assert_eq!(trace[0].attributes["rpc.grpc.status_code"], (status.code() as i32).to_string());
        for phase in ["publish", "resolve", "realise"] {
            assert_eq!(named(&trace, phase).status, 2, "{phase} in\n{}", tree(&trace));
        }
    }
    let trace = trace_of(&spans, "publish", volume_is(&thrown));
    let evaluate = named(&trace, "evaluate");
    assert!(evaluate.message.contains("not this one"), "{}", tree(&trace));
    let process = trace.iter().find(|span| span.parent == evaluate.id).unwrap();
    assert_eq!((process.status, &*process.attributes["process.exit.code"]), (2, "1"));
    assert!(!text.contains(MARK), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_anothers_build_is_linked_with_it() {
    let lab = lab!();
    let collector = Collector::start(&lab);
    let mut node = traced_node(&lab, &collector, &[]).await;
    let gate = Gate::new(&lab, "shared");
    let expression = gate.expression();
    let [first, second] =
        ["first", "second"].map(|name| lab.volume(name, &[("nixExpr", &expression)]));
    let again = first.clone();
    let joins = async {
        gate.started().await;
        let waits = async || {
            let builds = node.status().await.builds;
            builds.iter().any(|build| build.volumes.len() == 2)
        };
        let opens = async {
            until("both to wait", waits).await;
            gate.open();
        };
        tokio::join!(node.publish(&second), node.publish(&again), opens)
    };
    let (done, (joined, repeated, ())) = tokio::join!(node.publish(&first), joins);
    for done in [done, joined, repeated] {
        done.unwrap();
    }
    assert_eq!(node.stop(), Some(0));
    let (spans, _) = collector.spans();
    let theirs = trace_of(&spans, "publish", volume_is(&second));
    let realise: Vec<_> = spans.iter().filter(|span| span.name == "realise").collect();
    assert_eq!(realise.len(), 1, "{}", tree(&spans));
    let waits = named(&theirs, "resolve");
    assert_ne!(waits.trace, realise[0].trace);
    assert_eq!(waits.links, std::slice::from_ref(&realise[0].id));
    assert_eq!(realise[0].links, std::slice::from_ref(&waits.id));
    // The first one's own calls: the later one shows what it joined.
    let is_firsts =
        |span: &&Span| span.name == "publish" && span.attributes["nixcsi.volume"] == first.id;
    let calls: Vec<_> = spans.iter().filter(is_firsts).collect();
    let links: Vec<_> = calls.iter().map(|call| call.links.clone()).collect();
    let ids: Vec<_> = calls.iter().map(|call| call.id.clone()).collect();
    assert!(
        calls.len() == 2 && links.iter().flatten().all(|link| ids.contains(link)),
        "{calls:#?}"
    );
    assert_eq!(links.concat().len(), 2, "{calls:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_is_continued_and_reaches_what_runs_as_the_driver() {
    let lab = lab!();
    let collector = Collector::start(&lab);
    let mut node = traced_node(&lab, &collector, &[]).await;
    let gate = Gate::new(&lab, "gate");
    let mount = |name: &str, source: &str| {
        let mut mount = lab.command("env");
        mount.arg(format!("TRACEPARENT=00-{CALLERS}-b7ad6b7169203331-01"));
        mount.arg(lab::node_binary()).args(["mount", "--expr", source]).arg(lab.target(name));
        mount.arg("--endpoint").arg(format!("unix://{}", node.csi.display()));
        mount.arg("--admin-endpoint").arg(format!("unix://{}", node.admin.display()));
        mount.spawn().unwrap()
    };
    let environment = |marks: &[&str]| {
        let all = lab.processes().into_iter();
        let found = all.filter(|line| marks.iter().all(|mark| line.contains(mark)));
        let environ = |line: String| {
            let pid = line.split(' ').next().unwrap().to_owned();
            fs::read(lab.proc().join(pid).join("environ")).unwrap_or_default()
        };
        found.map(|line| String::from_utf8(environ(line)).unwrap()).collect::<String>()
    };
    let mut mounting = mount("built", &gate.expression());
    gate.started().await;
    let realising = environment(&["nix-store", "--realise"]);
    gate.open();
    assert!(mounting.wait().unwrap().success());
    let mut evaluating =
        mount("endless", "let f = n: if n < 2 then 1 else f (n - 1) + f (n - 2); in f 60");
    let mut evaluator = String::new();
    until("the evaluator", async || {
        evaluator = environment(&["f 60", "--option"]);
        !evaluator.is_empty()
    })
    .await;
    evaluating.kill().unwrap();
    evaluating.wait().unwrap();
    node.stop();
    let (spans, _) = collector.spans();
    let build = spans.iter().find(|span| span.name == "build").unwrap();
    assert_eq!(build.trace, CALLERS);
    let handed = format!("TRACEPARENT=00-{CALLERS}-{}-01", build.id);
    assert!(realising.contains(&handed), "{realising:?} lacks {handed}");
    assert!(!evaluator.contains("TRACEPARENT"), "{evaluator:?}");
    let rpc = spans.iter().find(|span| span.name == RPC).unwrap();
    assert_eq!(rpc.parent, "b7ad6b7169203331");
}
