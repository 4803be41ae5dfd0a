//! Is it healthy, and what do users wait for?

use super::board::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "overview",
        title: "nix-csi / Overview",
        description: "Is nix-csi healthy, and what do users wait for? A click on a panel leads to the details.",
        panels: [now(), waits(), rest()].into_iter().flatten().collect(),
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Nodes and caches", "none")
            .says("Drivers that Prometheus reads. Good: one a node, and one more with a cache. Fewer: their pods do \
                   not run, or networkPolicy.metricsFrom does not let Prometheus in.")
            .ask("count(count by (cluster, namespace, instance) (nixcsi_actor_alive{$of}))", "")
            .opens("actors", "Actors"),
        Panel::stat("Not ready", "none")
            .says("Drivers of which a part is not ready: new pods with stores wait there. Good: 0. Runbook: \
                   NixCsiNotReady in docs/alerts.md.")
            .ask(
                "sum(min by (cluster, namespace, instance) (nixcsi_ready{$of}) == bool 0)",
                "",
            )
            .levels(&[(1.0, "red")])
            .opens("actors", "Actors"),
        Panel::stat("Alerts that fire", "none")
            .says("Of the chart's rules (metrics.prometheusRule). Good: 0. The table below says which, docs/alerts.md \
                   what to do.")
            .ask(r#"count(ALERTS{$alerts,alertstate="firing"}) or vector(0)"#, "")
            .levels(&[(1.0, "orange")])
            .opens("actors", "Actors"),
        Panel::stat("Mounts that failed", "percentunit")
            .says("Of those that ended in the time shown, for any reason, the pods' own included. Good: below 1 %. \
                   The dashboard of mounts has the reasons; runbook: NixCsiMountsFailing in docs/alerts.md.")
            .ask(
                r#"1 - sum(increase(nixcsi_publish_seconds_count{$of,outcome="ok"}[$__range])) / sum(increase(nixcsi_publish_seconds_count{$of}[$__range]))"#,
                "",
            )
            .levels(&[(0.01, "orange"), (0.06, "red")])
            .opens("mounts", "Mounts"),
        Panel::stat("95 % mounted in", "s")
            .says("From a pod's first call until its volume was there, in the time shown. Good: below a minute, and \
                   below a second where closures are warm. Runbook: NixCsiMountsSlow in docs/alerts.md.")
            .ask(
                r#"histogram_quantile(0.95, sum by (le) (increase(nixcsi_publish_seconds_bucket{$of,outcome="ok"}[$__range])))"#,
                "",
            )
            .levels(&[(60.0, "orange"), (300.0, "red")])
            .opens("mounts", "Mounts"),
        Panel::stat("Warm", "percentunit")
            .says("Mounts in the time shown for which nothing was evaluated, fetched, built or copied. Good: high; \
                   what is kept warm (docs/warm.md) raises it.")
            .ask(
                r#"sum(increase(nixcsi_publish_seconds_count{$of,outcome="ok",warm="yes"}[$__range])) / sum(increase(nixcsi_publish_seconds_count{$of,outcome="ok"}[$__range]))"#,
                "",
            )
            .rising(&[(0.2, "orange"), (0.6, "green")])
            .opens("mounts", "Mounts"),
        Panel::stat("Volumes", "none")
            .says("Mounted now. They need no driver: they stay while one is restarted.")
            .ask("sum(nixcsi_volumes{$of})", "")
            .opens("mounts", "Mounts"),
        Panel::stat("Fullest disk", "percentunit")
            .says("Of the stores' file systems, by bytes or inodes. Good: below the high watermark (85 % if nothing \
                   else is set). Runbook: NixCsiDiskFull in docs/alerts.md.")
            .ask(
                r#"max(1 - nixcsi_store_space{$of,state="free"} / ignoring (state) nixcsi_store_space{$of,state="total"})"#,
                "",
            )
            .levels(&[(0.85, "orange"), (0.95, "red")])
            .opens("gc-and-disk", "GC and disk"),
    ]
}

fn waits() -> Vec<Panel> {
    vec![
        Panel::stacked("What users wait for", "short")
            .says("Volumes that are being prepared, by what is done for them: seconds of each phase in a second. \
                   Good: low. Much of evaluate or build: a cache or what is kept warm helps; much of fetch or resolve: \
                   the substituters or the network are slow. Waits for a slot are below, as queued.")
            .ask(
                "sum by (phase) (rate(nixcsi_publish_phase_seconds_sum{$of}[$__rate_interval]))",
                "{{phase}}",
            )
            .opens("mounts", "Mounts"),
        Panel::table(
            "Alerts",
            "short",
            r#"sum by (alertname, severity, node, instance) (ALERTS{$alerts,alertstate="firing"})"#,
            &["alertname", "severity", "node", "instance"],
        )
        .says("What fires now. Good: none. docs/alerts.md has a runbook for each by its name.")
        .size(12, 8),
        Panel::stacked("Mounts by outcome", "ops")
            .says("Good: only ok. Other outcomes are reasons why pods wait or fail; the dashboard of mounts has them \
                   one by one.")
            .ask(
                "sum by (outcome) (rate(nixcsi_publish_seconds_count{$of}[$__rate_interval]))",
                "{{outcome}}",
            )
            .paint("ok", "green")
            .opens("mounts", "Mounts"),
        Panel::lines("Time until mounted", "s")
            .says("Of mounts that succeeded. Good: the middle one far below a second, as most are warm, and 95 % below \
                   a minute. Runbook: NixCsiMountsSlow in docs/alerts.md.")
            .ask(&quantile("0.5"), "50 %")
            .ask(&quantile("0.95"), "95 %")
            .ask(&quantile("0.99"), "99 %")
            .by_powers()
            .opens("mounts", "Mounts"),
    ]
}

fn quantile(part: &str) -> String {
    format!(
        r#"histogram_quantile({part}, sum by (le) (rate(nixcsi_publish_seconds_bucket{{$of,outcome="ok"}}[$__rate_interval])))"#
    )
}

fn rest() -> Vec<Panel> {
    vec![
        Panel::stacked("Evaluations and builds", "short")
            .says("Under way, and waiting for a slot. Good: nothing queued for long. Runbooks: NixCsiBuildsStuck and NixCsiBuildsSlow \
                   in docs/alerts.md.")
            .ask("sum by (stage) (nixcsi_builds{$of})", "{{stage}}")
            .opens("builds-and-cache", "Builds and cache"),
        Panel::lines("Cache and uploads", "short")
            .says("Nodes that can't reach the cluster's cache, and closures that wait for their upload or were given \
                   up. Good: 0 and 0, with short hills after builds. Runbooks: NixCsiCacheUnreachable, \
                   NixCsiUploadsNotDraining, NixCsiUploadsGivenUp in docs/alerts.md.")
            .ask("sum(nixcsi_cache_reachable{$of} == bool 0)", "nodes without the cache")
            .ask(r#"sum(nixcsi_upload_queue{$of,state=~"waiting|sending"})"#, "uploads that wait")
            .ask(r#"sum(nixcsi_upload_queue{$of,state="dead"})"#, "uploads given up")
            .paint("nodes without the cache", "red")
            .opens("builds-and-cache", "Builds and cache"),
        Panel::bars("Disk in use", "percentunit")
            .says("Of the stores' file systems, the ten fullest. Good: below the high watermark; above it garbage is \
                   collected whatever its age. Runbooks: NixCsiDiskAboveWatermark and NixCsiDiskFull in docs/alerts.md.")
            .ask(
                r#"topk(10, max by (node, instance) (1 - nixcsi_store_space{$of,state="free"} / ignoring (state) nixcsi_store_space{$of,state="total"}))"#,
                "{{node}} {{instance}}",
            )
            .levels(&[(0.85, "orange"), (0.95, "red")])
            .up_to(1.0)
            .opens("gc-and-disk", "GC and disk"),
        Panel::table(
            "Versions",
            "none",
            "count by (version, nix) (nixcsi_build_info{$of})",
            &["version", "nix"],
        )
        .says("How many drivers run which version, with which Nix. Good: one line, but while a release is rolled out.")
        .size(12, 8),
    ]
}
