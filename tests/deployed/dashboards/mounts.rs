//! How long mounts take, by phase, and why they fail.

use super::board::Dashboard;
use super::panel::Panel;

/// As `nixcsi_publish_phase_seconds` has them, in their order.
const PHASES: [(&str, &str, &str); 6] = [
    (
        "resolve",
        "Resolve",
        "Until it is known what is wanted and whether it may be: policy, secrets, and Nix's plan, for which it asks \
         substituters; waits for a slot are none of it. Good: milliseconds where the closure is there, else a second. \
         More: substituters or the API server are slow.",
    ),
    (
        "evaluate",
        "Evaluate",
        "Lock and evaluation in the jail, without waiting for a slot. Good: seconds. Large expressions such as nixpkgs \
         take longer; a storePath needs none.",
    ),
    (
        "fetch",
        "Fetch",
        "While paths were fetched. Good: what their size and the network explain. Runbook: NixCsiSubstituterDown in \
         docs/alerts.md.",
    ),
    (
        "build",
        "Build",
        "While something was built. Good: few; what the cache has is not built. docs/builds.md has the limits.",
    ),
    (
        "view",
        "View",
        "Making the view of a closure, or taking one that is there. Good: milliseconds, and less than a second for \
         closures of thousands of paths.",
    ),
    (
        "mount",
        "Mount",
        "Record and mount. Good: milliseconds. More is a slow disk below /run/nix-csi, or very many mounts on the \
         node: runbook NixCsiMountsNearLimit in docs/alerts.md.",
    ),
];

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "mounts",
        title: "nix-csi / Mounts",
        description: "How long pods wait for their volumes, in which phase, and why some fail.",
        panels: [latency(), phases(), failures(), volumes()].into_iter().flatten().collect(),
    }
}

fn quantile(part: &str, warm: &str) -> String {
    format!(
        r#"histogram_quantile({part}, sum by (le) (rate(nixcsi_publish_seconds_bucket{{$of,outcome="ok",warm="{warm}"}}[$__rate_interval])))"#
    )
}

fn latency() -> Vec<Panel> {
    vec![
        Panel::row("How long they take"),
        Panel::heat("All mounts", r#"nixcsi_publish_seconds_bucket{$of,outcome="ok"}"#)
            .says("When how many mounts took how long, from a pod's first call until its volume was there. Good: a \
                   dark band at the bottom (warm ones), and little above a minute. Runbook: NixCsiMountsSlow in \
                   docs/alerts.md.")
            .size(12, 9),
        Panel::lines("Warm and cold", "s")
            .says("Warm: nothing had to be evaluated, fetched, built or copied. Good: warm ones below 0.1 s; cold ones \
                   take what they fetch and build.")
            .ask(&quantile("0.5", "yes"), "50 % of warm")
            .ask(&quantile("0.95", "yes"), "95 % of warm")
            .ask(&quantile("0.5", "no"), "50 % of cold")
            .ask(&quantile("0.95", "no"), "95 % of cold")
            .by_powers()
            .size(12, 9),
        Panel::lines("Share of warm mounts", "percentunit")
            .says("Of mounts that succeeded. Good: high where pods of one closure come again and again. docs/warm.md \
                   says how closures are kept warm, docs/gc.md when they go.")
            .ask(
                r#"sum(rate(nixcsi_publish_seconds_count{$of,outcome="ok",warm="yes"}[$__rate_interval])) / sum(rate(nixcsi_publish_seconds_count{$of,outcome="ok"}[$__rate_interval]))"#,
                "warm",
            )
            .up_to(1.0)
            .size(8, 8),
        Panel::stacked("Mounts by source", "ops")
            .says("What pods ask for, whatever came of it.")
            .ask(
                "sum by (source) (rate(nixcsi_publish_seconds_count{$of}[$__rate_interval]))",
                "{{source}}",
            )
            .size(8, 8),
        Panel::lines("Calls of kubelets under way", "short")
            .says("Volumes that are being mounted or unmounted now. Good: back to 0 soon; kubelets give up after two \
                   minutes and call again.")
            .ask(
                r#"sum by (method) (nixcsi_grpc_in_flight{$of,method=~"Node(Publish|Unpublish)Volume"})"#,
                "{{method}}",
            )
            .size(8, 8),
    ]
}

fn phases() -> Vec<Panel> {
    let heat = |(phase, title, says): &(&str, &'static str, &'static str)| {
        let buckets = format!(r#"nixcsi_publish_phase_seconds_bucket{{$of,phase="{phase}"}}"#);
        Panel::heat(title, &buckets).says(says)
    };
    let mut panels = vec![Panel::row("By phase")];
    panels.extend(PHASES.iter().map(heat));
    panels.push(
        Panel::lines("95 % of each phase", "s")
            .says("The phases side by side; those that did not happen don't count. Good: only fetch and build take \
                   long, and only now and then.")
            .ask(
                "histogram_quantile(0.95, sum by (le, phase) (rate(nixcsi_publish_phase_seconds_bucket{$of}[$__rate_interval])))",
                "{{phase}}",
            )
            .by_powers(),
    );
    panels.push(
        Panel::stacked("Where the time goes", "short")
            .says(
                "Seconds of each phase in a second: how many volumes are in it at once. Good: low.",
            )
            .ask(
                "sum by (phase) (rate(nixcsi_publish_phase_seconds_sum{$of}[$__rate_interval]))",
                "{{phase}}",
            ),
    );
    panels
}

fn failures() -> Vec<Panel> {
    vec![
        Panel::row("Failures"),
        Panel::stacked("Failures by reason", "ops")
            .says("Good: none. build, evaluation and refused are their authors'; temporary, mount, view, record, store \
                   and no_space are the node's own. docs/troubleshooting.md has their messages.")
            .ask(
                r#"sum by (outcome) (rate(nixcsi_publish_seconds_count{$of,outcome!="ok"}[$__rate_interval]))"#,
                "{{outcome}}",
            ),
        Panel::lines("Against the objectives", "percentunit")
            .says("Of 100 volumes 99 do not fail by the node's own fault, and 95 are mounted within a minute. Of all \
                   nodes, whatever is chosen above. Good: below 1 % and 5 %. Runbooks: NixCsiMountsFailing and \
                   NixCsiMountsSlow in docs/alerts.md.")
            .ask("nixcsi:publish_errors:ratio_rate5m", "failed, 5 minutes")
            .ask("nixcsi:publish_errors:ratio_rate1h", "failed, 1 hour")
            .ask("nixcsi:publish_slow:ratio_rate30m", "slow, 30 minutes"),
        Panel::stacked("Refused by the policy", "ops")
            .says("What the policy did not let in, by what it was about. Good: none but tries. docs/policy.md, and \
                   `nix-csi policy explain` on the node.")
            .ask(
                "sum by (what) (rate(nixcsi_policy_refusals_total{$of}[$__rate_interval]))",
                "{{what}}",
            ),
        Panel::lines("Damage", "short")
            .says("In the time shown so far: paths replaced below mounted views, and records that can't be read. \
                   Good: 0. Runbooks: NixCsiStoreChanged and NixCsiRecordsUnreadable in docs/alerts.md.")
            .ask("sum(increase(nixcsi_view_paths_replaced_total{$of}[$__rate_interval]))", "paths replaced")
            .ask("sum(increase(nixcsi_unreadable_records_total{$of}[$__rate_interval]))", "records unreadable")
            .paint("paths replaced", "red"),
    ]
}

fn volumes() -> Vec<Panel> {
    vec![
        Panel::row("Volumes and pods"),
        Panel::stacked("Volumes", "short")
            .says("Mounted now. Read-only ones (ro) share a view; writable ones (rw) have a layer of their own.")
            .ask("sum by (access) (nixcsi_volumes{$of})", "{{access}}")
            .size(8, 8),
        Panel::lines("Mounts of the limit", "percentunit")
            .says("Of /proc/sys/fs/mount-max, in the driver's mount namespace. Good: below 80 %. Runbook: \
                   NixCsiMountsNearLimit in docs/alerts.md.")
            .ask(
                "max by (node, instance) (nixcsi_mounts{$of} / nixcsi_mounts_limit{$of})",
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Pods", "short")
            .says("Pods of the chosen nodes, and in the time of a point watches of them that broke, and volumes taken \
                   away since their pod was gone for good. Good: watches break now and then; each is made anew.")
            .ask("sum(nixcsi_pods_watched{$of})", "pods")
            .ask("sum(increase(nixcsi_pod_watches_lost_total{$of}[$__rate_interval]))", "watches lost")
            .ask("sum(increase(nixcsi_volumes_swept_total{$of}[$__rate_interval]))", "volumes swept")
            .size(8, 8),
        Panel::stacked("Kept warm", "short")
            .says("Sources that nodes keep ready, by state (docs/warm.md). Good: all ready.")
            .ask("sum by (state) (nixcsi_kept{$of})", "{{state}}")
            .paint("ready", "green")
            .paint("failing", "red")
            .size(8, 8),
        Panel::lines("Keeping warm fails", "ops")
            .says("Tries that failed, by reason. Good: none. `nix-csi status` on the node says which source.")
            .ask(
                "sum by (reason) (rate(nixcsi_keep_failures_total{$of}[$__rate_interval]))",
                "{{reason}}",
            )
            .size(8, 8),
        Panel::lines("Events on pods", "short")
            .says("What `kubectl describe pod` shows (docs/events.md), in the time of a point. Good: none dropped or \
                   failed; repeated ones were said before.")
            .ask(
                "sum by (outcome) (increase(nixcsi_events_total{$of}[$__rate_interval]))",
                "{{outcome}}",
            )
            .ask("sum(nixcsi_events_queued{$of})", "waiting now")
            .size(8, 8),
    ]
}
