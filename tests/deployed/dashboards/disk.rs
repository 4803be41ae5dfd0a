//! The store's disk, and garbage.

use super::board::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "gc-and-disk",
        title: "nix-csi / GC and disk",
        description: "How full the stores are, what is collected, and what holds the rest.",
        panels: [space(), collections(), store()].into_iter().flatten().collect(),
    }
}

/// Free space, and the marks at which collections begin and end.
fn free(title: &'static str, unit: &'static str, of: &str) -> Panel {
    let space =
        format!(r#"min by (node, instance) (nixcsi_store_space{{$of,unit="{of}",state="free"}})"#);
    let mark = |mark: &str| {
        format!(
            r#"max by (node, instance) (nixcsi_store_watermark{{$of,unit="{of}",mark="{mark}"}})"#
        )
    };
    Panel::lines(title, unit)
        .says("Below the high mark what was used least recently goes, whatever its age, until the low mark is reached. \
               Good: above both. Runbooks: NixCsiDiskAboveWatermark and NixCsiDiskFull in docs/alerts.md.")
        .ask(&space, "{{node}} {{instance}}")
        .ask(&mark("high"), "high mark of {{node}} {{instance}}")
        .ask(&mark("low"), "low mark of {{node}} {{instance}}")
}

fn space() -> Vec<Panel> {
    vec![
        Panel::row("Disk"),
        free("Free bytes", "bytes", "bytes"),
        free("Free inodes", "short", "inodes"),
        Panel::bars("Disk in use", "percentunit")
            .says("Bytes of the stores' file systems. Good: below the high watermark.")
            .ask(
                r#"1 - sum by (node, instance) (nixcsi_store_space{$of,unit="bytes",state="free"}) / sum by (node, instance) (nixcsi_store_space{$of,unit="bytes",state="total"})"#,
                "{{node}} {{instance}}",
            )
            .levels(&[(0.85, "orange"), (0.95, "red")])
            .up_to(1.0)
            .size(8, 8),
        Panel::lines("Bytes lacking", "bytes")
            .says("What the last collection could not give back, down to the low watermark: all that is left is in \
                   use. Good: 0. Runbook: NixCsiDiskFull in docs/alerts.md.")
            .ask(
                r#"max by (node, instance) (nixcsi_gc_lacking{$of,unit="bytes"})"#,
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Inodes lacking", "short")
            .says("The same of inodes. Good: 0. Runbook: NixCsiDiskFull in docs/alerts.md.")
            .ask(
                r#"max by (node, instance) (nixcsi_gc_lacking{$of,unit="inodes"})"#,
                "{{node}} {{instance}}",
            )
            .size(8, 8),
    ]
}

fn collections() -> Vec<Panel> {
    vec![
        Panel::row("Collections"),
        Panel::stacked("Collections by outcome", "ops")
            .says("Good: ok. busy: Nix's own collector was at it; stalled: a step took longer than --gc-step-timeout. \
                   Runbook: NixCsiGarbageStays in docs/alerts.md.")
            .ask(
                "sum by (outcome) (rate(nixcsi_gc_cycles_total{$of}[$__rate_interval]))",
                "{{outcome}}",
            )
            .paint("ok", "green")
            .size(8, 8),
        Panel::lines("Time of a collection", "s")
            .says("Good: seconds; of very large stores minutes. Mounts don't wait for it.")
            .ask(
                "histogram_quantile(0.5, sum by (le) (rate(nixcsi_gc_seconds_bucket{$of}[$__rate_interval])))",
                "50 %",
            )
            .ask(
                "histogram_quantile(0.95, sum by (le) (rate(nixcsi_gc_seconds_bucket{$of}[$__rate_interval])))",
                "95 %",
            )
            .size(8, 8),
        Panel::lines("Since the last that succeeded", "s")
            .says("Good: about --gc-interval. Runbook: NixCsiGarbageStays in docs/alerts.md.")
            .ask(
                "time() - max by (node, instance) (nixcsi_gc_last_success_timestamp_seconds{$of} > 0)",
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Freed", "Bps")
            .says("Bytes given back by deletions. Good: about what comes. Much of both, again and again, is a disk too \
                   small for what pods use: docs/gc.md.")
            .ask(
                "sum by (node, instance) (rate(nixcsi_gc_freed_bytes_total{$of}[$__rate_interval]))",
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Deleted paths", "ops")
            .says("Store paths that went. Good: about as many as come.")
            .ask(
                "sum by (node, instance) (rate(nixcsi_gc_deleted_paths_total{$of}[$__rate_interval]))",
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Trouble", "short")
            .says("Paths that the last collection could not delete, and roots of nothing that were found in the time \
                   of a point. Good: 0; `nix-csi status` on the node has the last error.")
            .ask("sum(nixcsi_gc_stuck_paths{$of})", "stuck paths")
            .ask("sum(increase(nixcsi_gc_leaked_roots_total{$of}[$__rate_interval]))", "leaked roots")
            .size(8, 8),
    ]
}

fn store() -> Vec<Panel> {
    vec![
        Panel::row("What is there, and what holds it"),
        Panel::stacked("Paths kept, by reason", "short")
            .says("Of the last collection: why it left paths. view: in use, or kept warm; recent: nothing holds it, it \
                   goes with age or need; root and process: somebody else's. Good: mostly view and recent. `nix-csi gc \
                   --explain PATH` says it of one path.")
            .ask("sum by (reason) (nixcsi_gc_pinned_paths{$of})", "{{reason}}")
            .size(8, 8),
        Panel::lines("Size of the store", "bytes")
            .says("NAR bytes of valid paths, from the store's database: what the store would take without \
                   optimisation.")
            .ask("sum by (node, instance) (nixcsi_store_bytes{$of})", "{{node}} {{instance}}")
            .size(8, 8),
        Panel::lines("Paths of the store", "short")
            .says("Valid paths. Good: it rises and falls with what pods use. Each view has a directory per path.")
            .ask("sum by (node, instance) (nixcsi_store_paths{$of})", "{{node}} {{instance}}")
            .size(8, 8),
        Panel::stacked("Views", "short")
            .says("Closures as volumes show them: used by a volume, or idle, kept for --keep-idle so that the next \
                   mount is warm.")
            .ask("sum by (state) (nixcsi_views{$of})", "{{state}}")
            .size(12, 8),
        Panel::lines("Mounts", "short")
            .says("In the driver's mount namespace, and the kernel's limit. Good: below 80 % of it. Runbook: \
                   NixCsiMountsNearLimit in docs/alerts.md.")
            .ask("max by (node, instance) (nixcsi_mounts{$of})", "{{node}} {{instance}}")
            .ask("min(nixcsi_mounts_limit{$of})", "limit")
            .paint("limit", "red")
            .by_powers()
            .size(12, 8),
    ]
}
