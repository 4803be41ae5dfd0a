//! What a person sees of it: a real Prometheus reads a cache and two nodes under load, and is asked all that dashboards,
//! alerts and recording rules ask.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod boards;
mod empty;
mod exposed;
mod load;
mod prometheus;
mod record;
mod world;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use serde_json::Value;

use boards::{Query, queries, substituted, variables};
use empty::{EMPTY, STILL};
use exposed::Exposed;
use load::Pods;
use prometheus::{Prometheus, SCRAPE, Target, complaints, series};
use world::Machines;

/// Points of a graph, about.
const POINTS: u64 = 300;
/// As a cluster's Prometheus would call them: the cache, and two nodes.
const INSTANCES: [&str; 3] = ["10.77.0.1:9809", "10.77.0.2:9809", "10.77.0.3:9809"];

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The time that is shown, and what Grafana makes of it.
struct Shown {
    from: f64,
    to: f64,
    step: u64,
    range: String,
    rate: String,
}

impl Shown {
    fn new(from: f64, to: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of seconds")]
        let seconds = (to - from) as u64;
        let step = (seconds / POINTS).max(1);
        let rate = (4 * SCRAPE).max(step + SCRAPE);
        Self { from, to, step, range: format!("{seconds}s"), rate: format!("{rate}s") }
    }

    fn ask(&self, prometheus: &Prometheus, query: &Query, chosen: &[(&str, &str)]) -> Value {
        let times = [("__rate_interval", &*self.rate), ("__range", &*self.range)];
        let expression = substituted(&query.expression, &[&times[..], chosen].concat());
        if query.is_instant {
            prometheus.query(&expression, Some(self.to))
        } else {
            prometheus.range(&expression, (self.from, self.to), self.step)
        }
    }
}

/// "All" of each variable.
const ALL: [(&str, &str); 4] =
    [("cluster", ".*"), ("namespace", ".*"), ("node", ".*"), ("instance", ".*")];

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_alerts_and_rules_say_something_of_real_drivers() {
    let machines = or_skip!(Machines::new());
    let keys = machines.keys();
    let mut role = machines.cache_role(&keys);
    let cached = machines.cached(&keys, 3);
    let node_a = machines.node_a(&role, &keys, &cached[0]).await;
    let client_b = machines.client_b(&role, &keys);
    let node_b = machines.node_b(&client_b, &[]).await;
    let exposed = [role.serves(), node_a.serves(), node_b.serves()].map(Exposed::new);
    let of_lab = |node| [("cluster", "lab"), ("namespace", "nix-csi"), ("node", node)];
    let (of_cache, of_a) = (of_lab("cache"), of_lab("a"));
    // As a target of somebody's own Prometheus, which has no such labels.
    let labels = [&of_cache[..], &of_a, &[]];
    let targets = exposed.iter().zip(labels);
    let targets = targets.zip(INSTANCES).map(|((exposed, labels), instance)| Target {
        address: &exposed.address,
        instance,
        labels,
    });
    let targets: Vec<_> = targets.collect();
    let prometheus = Prometheus::start(&targets).await;
    prometheus.knows("count(up == 1) == 3").await;

    let from = now();
    let flake = machines.a.path("flake");
    let flake = Some(flake.to_str().unwrap());
    let a = Pods { lab: &machines.a, name: "a", cached: &cached[1..], flake };
    let b = Pods { lab: &machines.b, name: "b", cached: &cached[1..], flake: None };
    let done = AtomicBool::new(false);
    tokio::join!(
        a.come_and_go(&node_a, &done),
        a.build(&node_a, &done),
        b.come_and_go(&node_b, &done),
        load::over(&done, load::seen(&prometheus, load::FIRST)),
    );
    let (a, done) = (Pods { name: "a-outage", ..a }, AtomicBool::new(false));
    tokio::join!(
        a.come_and_go(&node_a, &done),
        b.build(&node_b, &done),
        load::over(&done, load::outage(&machines, (&mut role, &keys), &node_a, &prometheus)),
    );
    node_b.kill();
    let node_b = machines.node_b(&client_b, &["--build-on", "cache"]).await;
    exposed[2].moved(node_b.serves());
    let (a, b) = (Pods { name: "a-then", ..a }, Pods { name: "b-then", ..b });
    machines.configure("nonsense = yes\n");
    let done = AtomicBool::new(false);
    tokio::join!(
        a.come_and_go(&node_a, &done),
        b.come_and_go(&node_b, &done),
        b.build(&node_b, &done),
        load::over(&done, load::seen(&prometheus, load::LAST)),
    );
    let to = now();
    prometheus.knows(&format!("count(timestamp(up) > {to}) == 3")).await;

    let shown = Shown::new(from, to);
    let answers: Vec<_> = queries()
        .into_iter()
        .map(|query| {
            let answer = shown.ask(&prometheus, &query, &ALL);
            (query, answer)
        })
        .collect();
    if let Some(place) = record::place() {
        record::write(&place, &answers, (from, to));
    }
    let mut wrong = wrong_answers(&answers);
    wrong.extend(wrong_choices(&prometheus, &shown));
    wrong.extend(wrong_rules(&prometheus, &shown));
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether it has a value like that at any time.
fn has(answer: &Value, is_like: impl Fn(f64) -> bool) -> bool {
    series(answer).iter().any(|one| {
        let points = one["values"].as_array().map_or(&[][..], Vec::as_slice);
        let values = points.iter().chain(one.get("value")).map(|point| point[1].as_str().unwrap());
        values.map(|value| value.parse::<f64>().unwrap()).any(|v| !v.is_nan() && is_like(v))
    })
}

fn has_data(answer: &Value) -> bool {
    has(answer, |_| true)
}

/// Each query is understood and has data, and not only zeros, but for those of the lists.
fn wrong_answers(answers: &[(Query, Value)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let of = |list: &[empty::Entry]| -> BTreeSet<_> {
        list.iter().map(|(board, panel, letter, _)| (*board, *panel, *letter)).collect()
    };
    let (mut listed, mut still) = (of(EMPTY), of(STILL));
    for (query, answer) in answers {
        let name = format!("{} / {} / {}", query.board, query.panel, query.letter);
        let said = complaints(answer);
        wrong.extend(said.into_iter().map(|said| format!("{name}: {said}: {}", query.expression)));
        let is_listed = listed.remove(&(&*query.board, &*query.panel, &*query.letter));
        match (has_data(answer), is_listed) {
            (true, true) => wrong.push(format!("{name} has data, and is in the list of the empty")),
            (false, false) => wrong.push(format!("{name} has no data: {}", query.expression)),
            _ => (),
        }
        let may_be_still = still.remove(&(&*query.board, &*query.panel, &*query.letter));
        if has_data(answer) && !may_be_still && !has(answer, |value| value != 0.0) {
            wrong.push(format!("{name} is zero all the time: {}", query.expression));
        }
    }
    wrong.extend(listed.into_iter().chain(still).map(|unknown| format!("there is no {unknown:?}")));
    wrong
}

/// Variables offer what there is, and what is chosen is shown alone.
fn wrong_choices(prometheus: &Prometheus, shown: &Shown) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, series, label) in variables() {
        let series = substituted(&series, &ALL);
        let path = format!("/api/v1/label/{label}/values");
        let answer = prometheus.get(&path, &[("match[]", &series)]);
        let count = answer["data"].as_array().map_or(0, Vec::len);
        let expected = match &*name {
            "cluster" | "namespace" => 1,
            "node" => 2,
            _ => 3,
        };
        if count != expected {
            wrong.push(format!("the variable {name} offers {answer}"));
        }
    }
    let instance = INSTANCES[1];
    let chosen = [
        ("cluster", "(lab|other)"),
        ("namespace", "nix-csi"),
        ("node", "(a|b)"),
        ("instance", instance),
    ];
    for query in queries() {
        let answer = shown.ask(prometheus, &query, &chosen);
        wrong.extend(complaints(&answer).into_iter().map(|said| format!("{query:?}: {said}")));
        let others = series(&answer).iter().filter_map(|one| one["metric"]["instance"].as_str());
        let others: BTreeSet<_> = others.filter(|other| *other != instance).collect();
        if !others.is_empty() {
            wrong.push(format!("{query:?} shows {others:?} beside what was chosen"));
        }
    }
    wrong
}

/// Prometheus runs each rule, and those that record do.
fn wrong_rules(prometheus: &Prometheus, shown: &Shown) -> Vec<String> {
    let answer = prometheus.get("/api/v1/rules", &[]);
    let groups = answer["data"]["groups"].as_array().unwrap();
    let rules: Vec<_> = groups.iter().flat_map(|g| g["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 20, "only {} rules", rules.len());
    let mut wrong = Vec::new();
    for rule in rules {
        if rule["health"] != "ok" {
            wrong.push(format!("{rule}"));
        }
        let expression = rule["query"].as_str().unwrap();
        let answer = prometheus.range(expression, (shown.from, shown.to), shown.step);
        wrong.extend(complaints(&answer).into_iter().map(|said| format!("{expression}: {said}")));
        if rule["type"] == "recording" && !has_data(&answer) {
            wrong.push(format!("{} records nothing", rule["name"]));
        }
    }
    wrong
}
