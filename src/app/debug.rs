//! What a node and a cache have for a bug report.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::nix::conf_in_use;
use crate::actors::gc::GcHandle;
use crate::bundle::{Facts, Known, Origin, nix_conf_file, of_machine, setting};
use crate::config::{NodeConfig, ProcessSettings, Setting, settings_in_use};
use crate::grpc::DebugService;
use crate::health::{Condition, Health};
use crate::http::Count;
use crate::model::STORE_DIR;
use crate::nix::{NETRC, NIX_CONF};
use crate::{metrics, telemetry};

/// What both roles have.
pub(super) struct Process<'a> {
    pub(super) settings: &'a ProcessSettings,
    /// As `nix: Nix 2.34`.
    pub(super) facts: Vec<String>,
    pub(super) health: Health,
    pub(super) gc: GcHandle,
    pub(super) count: Count,
    pub(super) access_tokens: Option<PathBuf>,
}

pub(super) fn service(process: Process<'_>, stop: &CancellationToken) -> DebugService {
    let Process { settings, facts, health, gc, count, access_tokens } = process;
    let known = known(settings, access_tokens);
    let confs = confs(settings);
    let disks =
        vec![STORE_DIR.into(), settings.state_dir.clone(), settings.run_dir.clone(), "/tmp".into()];
    let facts = Facts { lines: facts, of: Some(std::process::id()) };
    let mut origins = vec![
        Origin::new("health.txt", move || {
            let text = health_text(&health);
            async { Ok(text) }
        }),
        Origin::new("gc.txt", move || gc_text(gc.clone())),
        Origin::new("metrics.txt", move || {
            let counted = count();
            async {
                counted.await;
                metrics::render().map_err(|error| error.to_string())
            }
        }),
        Origin::blocking("log.txt", || Ok(telemetry::recent())),
        Origin::blocking("settings.json", settings_text),
        Origin::blocking("nix.conf.txt", move || {
            Ok(confs.iter().map(|conf| nix_conf_file(conf)).collect())
        }),
    ];
    origins.extend(of_machine(facts, disks));
    DebugService { origins, known, stop: stop.clone() }
}

/// Of a node.
pub(super) fn node_facts(config: &NodeConfig, facts: &crate::grpc::NodeFacts) -> Vec<String> {
    vec![
        "role: node".to_owned(),
        format!("driver: {}", config.driver_name),
        format!("node: {}", facts.node_id),
        format!("nix: {}", facts.nix_version),
    ]
}

/// Nix's own, the operator's, and its copy that counts.
fn confs(settings: &ProcessSettings) -> Vec<PathBuf> {
    let all = [Some(NIX_CONF.into()), settings.nix_conf.clone(), conf_in_use(settings)];
    all.into_iter().flatten().collect()
}

fn known(settings: &ProcessSettings, access_tokens: Option<PathBuf>) -> Known {
    let options = settings.nix_option.iter().map(|(name, value)| format!("{name}={value}"));
    let values = settings_in_use().unwrap_or_default().into_iter().flat_map(|one| one.values);
    Known {
        access_tokens: access_tokens.into_iter().collect(),
        netrcs: vec![NETRC.into()],
        confs: confs(settings),
        values: values.chain(options).collect(),
    }
}

fn settings_text() -> Result<String, String> {
    let told = settings_in_use()?.into_iter().map(|one| {
        let Setting { name, environment, values, origin } = one;
        setting((&name, environment.as_deref()), &values, origin)
    });
    let told = Value::Array(told.collect());
    serde_json::to_string_pretty(&told).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn health_text(health: &Health) -> String {
    let word = |condition: &Condition| match condition {
        Condition::Starting | Condition::Ready => condition.as_str().to_owned(),
        Condition::Impaired(reason) | Condition::Sick(reason) => {
            format!("{}: {reason}", condition.as_str())
        }
    };
    let mut text = format!("all: {}\n", word(&health.overall().0));
    for (part, condition) in health.each() {
        let _ = writeln!(text, "{part}: {}", word(&condition));
    }
    text
}

async fn gc_text(gc: GcHandle) -> Result<String, String> {
    let status = gc.status().await.map_err(|error| error.to_string())?;
    let mut text = String::new();
    if let Some((step, time)) = status.step {
        let _ = writeln!(text, "under way: {step}, for {time:?}");
    }
    let _ = match status.last {
        Some((ago, report)) => writeln!(text, "last: {ago:?} ago: {report}"),
        None => writeln!(text, "none has come to its end yet"),
    };
    if let Some(error) = status.error {
        let _ = writeln!(text, "the last one failed: {error}");
    }
    Ok(text)
}

/// Nix's machines file, which has host keys' public halves and the name of a private one.
pub(super) fn machines(file: &Path) -> Origin {
    let file = file.to_owned();
    Origin::blocking("machines.txt", move || {
        crate::read::text_at_most(&file, crate::read::SMALL)
            .map_err(|error| format!("{}: {error}", file.display()))
    })
}
