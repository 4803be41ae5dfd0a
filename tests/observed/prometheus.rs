//! A real Prometheus, with the rules of the chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, interval};

use crate::lab::{free_address, http_get, installed, until};

/// Seconds between two readings of a driver's metrics.
pub(crate) const SCRAPE: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(150);
const RULES: &str = "deploy/chart/alerts/nix-csi.yaml";

pub(crate) struct Prometheus {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

/// What there is to read: an address, what it is called, and the other labels of its target.
pub(crate) struct Target<'t> {
    pub(crate) address: &'t str,
    pub(crate) instance: &'t str,
    pub(crate) labels: &'t [(&'t str, &'t str)],
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rules, with minutes for hours and seconds for minutes where an alert has to hold for a while.
fn hasty_rules() -> String {
    let text = fs::read_to_string(root().join(RULES)).unwrap();
    let line = |line: &str| match line.split_once("for: ") {
        Some((blanks, time)) if blanks.trim().is_empty() => {
            format!("{blanks}for: {}\n", time.replace('m', "s").replace('h', "m"))
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

impl Prometheus {
    pub(crate) async fn start(targets: &[Target<'_>]) -> Self {
        let dir = tempfile::Builder::new().prefix("nix-csi-prometheus").tempdir().unwrap();
        let mut config = format!(
            "global: {{scrape_interval: {SCRAPE}s, scrape_timeout: {SCRAPE}s, evaluation_interval: {SCRAPE}s}}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs:\n  - job_name: nix-csi\n    static_configs:\n"
        );
        for Target { address, instance, labels } in targets {
            let named = ("instance", *instance);
            let labels = labels.iter().chain([&named]);
            let labels = labels.map(|(name, value)| format!("{name}: '{value}'"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            writeln!(config, "      - {{targets: ['{address}'], labels: {{{labels}}}}}").unwrap();
        }
        fs::write(dir.path().join("rules.yaml"), hasty_rules()).unwrap();
        let file = dir.path().join("prometheus.yaml");
        fs::write(&file, config).unwrap();
        let address = free_address();
        // It ends with the test, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(format!("{}/prometheus", installed("install-promtool.sh")))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let prometheus = Self { child, address, dir };
        until("Prometheus", async || prometheus.try_get("/-/ready").is_ok()).await;
        prometheus
    }

    /// Waits until it knows of something, however busy the machine is.
    pub(crate) async fn knows(&self, expression: &str) {
        let mut again = interval(Duration::from_millis(200));
        let end = Instant::now() + PATIENCE;
        while series(&self.query(expression, None)).is_empty() {
            assert!(Instant::now() < end, "waited in vain for {expression}");
            again.tick().await;
        }
    }

    /// What an expression is at a time, or now.
    pub(crate) fn query(&self, expression: &str, time: Option<f64>) -> Value {
        let time = time.map(|time| time.to_string());
        let mut with = vec![("query", expression)];
        with.extend(time.as_deref().map(|time| ("time", time)));
        self.get("/api/v1/query", &with)
    }

    pub(crate) fn range(&self, expression: &str, (from, to): (f64, f64), step: u64) -> Value {
        let [from, to] = [from, to].map(|time| time.to_string());
        let step = step.to_string();
        let with = [("query", expression), ("start", &from), ("end", &to), ("step", &step)];
        self.get("/api/v1/query_range", &with)
    }

    /// What it answers, an error as well.
    pub(crate) fn get(&self, path: &str, with: &[(&str, &str)]) -> Value {
        let with = with.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
        let path = format!("{path}?{}", with.collect::<Vec<_>>().join("&"));
        let text = self.try_get(&path).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    fn try_get(&self, path: &str) -> std::io::Result<String> {
        let text = http_get(None, &self.address, path)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        // It says what is wrong with a query in the body.
        let is_said = head.contains(" 200 ") || head.contains(" 4");
        if is_said { Ok(body.to_owned()) } else { Err(std::io::Error::other(head.to_owned())) }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("log of Prometheus, the last first:\n{}", last.join("\n"));
        }
    }
}

/// The series of an answer.
pub(crate) fn series(answer: &Value) -> &[Value] {
    answer["data"]["result"].as_array().map_or(&[], Vec::as_slice)
}

/// A driver that is new begins at nothing. Where it has counted as much since as its predecessor in one bucket and not
/// in another, one of the two has no beginning for Prometheus, and the larger may have less in it.
const BEGUN_ANEW: &str = "needed to be fixed for monotonicity";

/// What is wrong with an answer.
pub(crate) fn complaints(answer: &Value) -> Vec<String> {
    let error = (answer["status"] != "success").then(|| answer["error"].to_string());
    let noted = ["warnings", "infos"].iter().filter_map(|kind| answer[kind].as_array()).flatten();
    let noted = noted.map(Value::to_string).filter(|text| !text.contains(BEGUN_ANEW));
    error.into_iter().chain(noted).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => all.push(char::from(byte)),
            _ => write!(all, "%{byte:02X}").unwrap(),
        }
        all
    })
}
