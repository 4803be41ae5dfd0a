//! Evaluations, builds and fetches, and the cluster's cache.

use super::board::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "builds-and-cache",
        title: "nix-csi / Builds and cache",
        description: "What is evaluated, built and fetched, how long it takes, and whether the cache helps.",
        panels: [builds(), origins(), uploads(), cache()].into_iter().flatten().collect(),
    }
}

fn builds() -> Vec<Panel> {
    vec![
        Panel::row("Evaluations and builds"),
        Panel::stacked("Under way and queued", "short")
            .says("Realisations by stage. Good: nothing queued for long. More --eval-slots or --build-slots let more \
                   through (docs/builds.md). Runbook: NixCsiBuildsStuck in docs/alerts.md.")
            .ask("sum by (stage) (nixcsi_builds{$of})", "{{stage}}")
            .size(8, 8),
        Panel::lines("The oldest one", "s")
            .says("How long the oldest evaluation or build has been in its stage. Good: below what its authors expect; \
                   `nix-csi builds` on the node shows it. Runbook: NixCsiBuildsSlow in docs/alerts.md.")
            .ask("max by (stage) (nixcsi_build_oldest_seconds{$of})", "{{stage}}")
            .size(8, 8),
        Panel::stacked("Realisations by outcome", "ops")
            .says("Evaluations, fetches and builds that ended. Good: only ok. A failure is tried again later and later.")
            .ask(
                "sum by (outcome) (rate(nixcsi_realise_seconds_count{$of}[$__rate_interval]))",
                "{{outcome}}",
            )
            .paint("ok", "green")
            .size(8, 8),
        Panel::lines("Time of a realisation, by where it was built", "s")
            .says("95 % take less. none: nothing was built, it was fetched or there; node: on the node itself; cache: by \
                   the cache itself; builders: on machines of either's. Good: most are none, in seconds.")
            .ask(
                "histogram_quantile(0.95, sum by (le, where) (rate(nixcsi_realise_seconds_bucket{$of}[$__rate_interval])))",
                "{{where}}",
            )
            .size(8, 8),
        Panel::stacked("Realisations by where they were built", "ops")
            .says("How many need a build, and where. Good: most need none. --build-on decides (docs/cache.md).")
            .ask(
                "sum by (where) (rate(nixcsi_realise_seconds_count{$of}[$__rate_interval]))",
                "{{where}}",
            )
            .size(8, 8),
        Panel::stacked("Time by stage", "short")
            .says("Seconds of each stage in a second: how many are in it at once. Good: little of it queued.")
            .ask(
                "sum by (stage) (rate(nixcsi_build_stage_seconds_sum{$of}[$__rate_interval]))",
                "{{stage}}",
            )
            .size(8, 8),
        Panel::lines("Derivations under way", "short")
            .says("Of what Nix has planned: to build in all, and built. Good: done follows expected.")
            .ask(
                r#"sum by (state) (nixcsi_build_progress{$of,unit="derivations"})"#,
                "{{state}}",
            )
            .size(8, 8),
        Panel::lines("Bytes under way", "bytes")
            .says("Of what Nix has planned: to fetch in all, and fetched. Good: done follows expected.")
            .ask(r#"sum by (state) (nixcsi_build_progress{$of,unit="bytes"})"#, "{{state}}")
            .size(8, 8),
        Panel::lines("Failures that wait", "short")
            .says("Requests that failed and are not tried again yet, by node. Good: 0. `nix-csi builds` lists them, \
                   `nix-csi builds retry` tries them at once.")
            .ask(
                "sum by (node, instance) (nixcsi_build_failures_remembered{$of})",
                "{{node}} {{instance}}",
            )
            .size(8, 8),
    ]
}

fn origins() -> Vec<Panel> {
    vec![
        Panel::row("Where paths come from"),
        Panel::stacked("Bytes by origin", "Bps")
            .says("NAR bytes that came to the nodes: from the cluster's cache, from another substituter, or built. \
                   Good: mostly from the cache.")
            .ask("sum by (origin) (rate(nixcsi_bytes_total{$of}[$__rate_interval]))", "{{origin}}")
            .size(8, 8),
        Panel::stacked("Paths by origin", "ops")
            .says("Store paths that came to the nodes. Good: mostly from the cache; the same path built on many nodes \
                   is what the cache is for.")
            .ask("sum by (origin) (rate(nixcsi_paths_total{$of}[$__rate_interval]))", "{{origin}}")
            .size(8, 8),
        Panel::lines("Substituters that don't answer", "short")
            .says("By node. Good: 0. They are asked again by themselves. Runbook: NixCsiSubstituterDown in docs/alerts.md.")
            .ask("sum by (node, instance) (nixcsi_substituters_down{$of})", "{{node}} {{instance}}")
            .size(8, 8),
    ]
}

fn uploads() -> Vec<Panel> {
    vec![
        Panel::row("Uploads to the cache"),
        Panel::lines("Cache reachable", "bool_yes_no")
            .says("What each node's last probe or push said. Good: yes. Runbook: NixCsiCacheUnreachable in docs/alerts.md.")
            .ask("min by (node, instance) (nixcsi_cache_reachable{$of})", "{{node}} {{instance}}")
            .up_to(1.0)
            .size(8, 8),
        Panel::stacked("How the last push ended", "short")
            .says("Nodes by the end of their last push. Good: ok, or none where nothing was built yet. Runbook: \
                   NixCsiCacheUnreachable in docs/alerts.md; docs/check.md has each end.")
            .ask("sum by (end) (nixcsi_cache_last_upload{$of}) > 0", "{{end}}")
            .paint("ok", "green")
            .size(8, 8),
        Panel::stacked("Upload queue", "short")
            .says("Closures that wait, are sent, or were given up (dead). Good: it drains. Runbooks: \
                   NixCsiUploadsNotDraining and NixCsiUploadsGivenUp in docs/alerts.md.")
            .ask("sum by (state) (nixcsi_upload_queue{$of})", "{{state}}")
            .paint("dead", "red")
            .size(8, 8),
        Panel::stacked("Uploads by outcome", "ops")
            .says("Closures; one that is tried again counts again. Good: ok. `nix-csi uploads` on the node says why \
                   others fail.")
            .ask(
                "sum by (outcome) (rate(nixcsi_uploads_total{$of}[$__rate_interval]))",
                "{{outcome}}",
            )
            .ask("sum(rate(nixcsi_uploads_dropped_total{$of}[$__rate_interval]))", "dropped")
            .paint("ok", "green")
            .size(8, 8),
        Panel::lines("Time of a push", "s")
            .says("Of up to 64 closures. Good: below --upload-timeout by far; what their size and the network explain.")
            .ask(
                "histogram_quantile(0.5, sum by (le) (rate(nixcsi_upload_seconds_bucket{$of}[$__rate_interval])))",
                "50 %",
            )
            .ask(
                "histogram_quantile(0.95, sum by (le) (rate(nixcsi_upload_seconds_bucket{$of}[$__rate_interval])))",
                "95 %",
            )
            .size(8, 8),
        Panel::lines("Bytes that the cache took", "Bps")
            .says("NAR bytes of uploaded closures. Good: it follows what is built.")
            .ask(
                "sum by (node, instance) (rate(nixcsi_upload_bytes_total{$of}[$__rate_interval]))",
                "{{node}} {{instance}}",
            )
            .size(8, 8),
    ]
}

fn cache() -> Vec<Panel> {
    vec![
        Panel::row("The cache"),
        Panel::stacked("Builders", "short")
            .says("Nodes that build for the cache, by state. Good: all ready; docs/cache.md has the others. Runbooks: \
                   NixCsiNoBuilders and NixCsiBuildersFlapping in docs/alerts.md.")
            .ask("sum by (state) (nixcsi_builders{$of})", "{{state}}")
            .paint("ready", "green")
            .size(8, 8),
        Panel::lines("Slots of builders", "short")
            .says("Builds at once that ready builders may have. Good: as many as are queued at busy times.")
            .ask("sum by (state) (nixcsi_builder_slots{$of})", "{{state}}")
            .size(8, 8),
        Panel::lines("List of builders", "ops")
            .says("How often it was written, and watches of their pods that broke. Good: low. Runbook: \
                   NixCsiBuildersFlapping in docs/alerts.md.")
            .ask("sum(rate(nixcsi_registry_writes_total{$of}[$__rate_interval]))", "written")
            .ask("sum(rate(nixcsi_registry_watch_lost_total{$of}[$__rate_interval]))", "watches lost")
            .size(8, 8),
        Panel::lines("Sessions", "short")
            .says("Clients over ssh: nodes, builders and people. Each takes about 5 MB. Good: below --max-sessions.")
            .ask("sum by (node, instance) (nixcsi_cache_sessions{$of})", "{{node}} {{instance}}")
            .size(8, 8),
        Panel::lines("Sessions refused", "ops")
            .says("Beyond --max-sessions, or --max-sessions-per-key of one key. Good: 0. Runbook: NixCsiCacheCrowded \
                   in docs/alerts.md.")
            .ask("sum(rate(nixcsi_cache_sessions_refused_total{$of}[$__rate_interval]))", "refused")
            .size(8, 8),
        Panel::stacked("Transfers", "short")
            .says("Sessions that pass much, and those that wait for their turn. Good: few wait; --max-transfers is how \
                   many move at once.")
            .ask("sum by (state) (nixcsi_cache_transfers{$of})", "{{state}}")
            .size(8, 8),
    ]
}
