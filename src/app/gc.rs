//! From settings to the collector.

use std::time::Duration;

use super::NodeError;
use crate::actors::gc::used::{Used, wall_clock};
use crate::actors::gc::{Rules, USED};
use crate::actors::node::{DAEMON, GcActorConfig, VOLUMES};
use crate::config::{GcSettings, NodeConfig, ProcessSettings};

const HOUR: Duration = Duration::from_hours(1);

pub(super) fn used(process: &ProcessSettings) -> Used {
    Used::open(&process.state_dir.join(USED), wall_clock())
}

pub(super) fn node(config: &NodeConfig) -> Result<GcActorConfig, NodeError> {
    let settings = &config.gc;
    let mut of_node = of(settings, HOUR, false, &[DAEMON, VOLUMES])?;
    if config.nix_daemon_socket.is_some() && settings.gc_older_than.is_none() {
        // The store is somebody else's, who may want to keep what nothing holds.
        (of_node.rules.older_than, of_node.rules.watermarks) = (None, None);
    }
    Ok(of_node)
}

pub(super) fn cache(settings: &GcSettings) -> Result<GcActorConfig, NodeError> {
    of(settings, 24 * HOUR, true, &[DAEMON])
}

fn of(
    settings: &GcSettings,
    older_than: Duration,
    reading_is_use: bool,
    after: &'static [&'static str],
) -> Result<GcActorConfig, NodeError> {
    let rules = Rules {
        older_than: Some(settings.gc_older_than.unwrap_or(older_than)),
        grace: settings.gc_grace,
        watermarks: settings.watermarks().map_err(NodeError)?,
        step: settings.gc_step_timeout,
        reading_is_use,
    };
    let (interval, look) = (settings.gc_interval, settings.gc_look_interval);
    Ok(GcActorConfig { rules, interval, look, after })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::actors::gc::water::Watermarks;
    use crate::config::{Cli, Command};

    fn rules(args: &[&str]) -> Result<Rules, String> {
        let parsed = Cli::try_parse_from([&["nix-csi", "node"], args].concat());
        let Command::Node(config) = parsed.map_err(|error| error.to_string())?.command else {
            panic!("a node was asked for");
        };
        node(&config).map(|gc| gc.rules).map_err(|error| error.to_string())
    }

    #[test]
    fn a_store_that_is_lent_is_collected_only_when_asked_for() {
        let ages = |args| {
            let rules = rules(args).unwrap();
            (rules.older_than, rules.watermarks)
        };
        let marks = Some(Watermarks { high: 85, low: 80 });
        assert_eq!(ages(&[]), (Some(HOUR), marks));
        assert_eq!(ages(&["--nix-daemon-socket", "/s"]), (None, None));
        let asked = ["--nix-daemon-socket", "/s", "--gc-older-than", "2h"];
        assert_eq!(ages(&asked), (Some(2 * HOUR), marks));
        assert_eq!(ages(&["--gc-high-watermark", "100"]), (Some(HOUR), None));
    }

    #[test]
    fn watermarks_that_are_none_are_named() {
        let error = rules(&["--gc-high-watermark", "70"]).unwrap_err();
        assert!(error.contains("--gc-low-watermark 80 is above --gc-high-watermark 70"), "{error}");
        let error = rules(&["--gc-high-watermark", "101"]).unwrap_err();
        assert!(error.contains("--gc-high-watermark"), "{error}");
        let error = rules(&["--gc-look-interval", "0s"]).unwrap_err();
        assert!(error.contains("--gc-look-interval") && error.contains("100ms or more"), "{error}");
    }
}
