//! For who develops it: the driver from inside.

use super::board::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "actors",
        title: "nix-csi / Actors",
        description: "The driver from inside, for who develops it: actors, calls, children and the process.",
        panels: [actors(), calls(), process(), children()].into_iter().flatten().collect(),
    }
}

fn actors() -> Vec<Panel> {
    vec![
        Panel::row("Actors"),
        Panel::stacked("Alive", "short")
            .says("Actors that run, by kind; each volume is one. Good: of the others one a driver.")
            .ask("sum by (actor) (nixcsi_actor_alive{$of})", "{{actor}}"),
        Panel::lines("Mailboxes", "short")
            .says("Messages sent and not yet handled. Good: near 0; one that grows is an actor whose handler blocks.")
            .ask("sum by (actor) (nixcsi_actor_mailbox_depth{$of})", "{{actor}}"),
        Panel::lines("Waiting in a mailbox", "s")
            .says("99 % of messages wait less, by actor. Good: below a millisecond; all actors share a thread, so that \
                   one slow handler shows in all of them.")
            .ask(
                "histogram_quantile(0.99, sum by (le, actor) (rate(nixcsi_actor_queue_seconds_bucket{$of}[$__rate_interval])))",
                "{{actor}}",
            )
            .by_powers(),
        Panel::lines("Being handled", "s")
            .says("99 % of messages are handled in less, by actor and message, the ten slowest. Good: below a \
                   millisecond; a handler only steps its state.")
            .ask(
                "topk(10, histogram_quantile(0.99, sum by (le, actor, message) (rate(nixcsi_actor_handle_seconds_bucket{$of}[$__rate_interval]))))",
                "{{actor}} {{message}}",
            )
            .by_powers(),
        Panel::lines("Messages", "ops")
            .says("Handled in a second, the ten most frequent. Good: it follows the calls and what is built.")
            .ask(
                "topk(10, sum by (actor, message) (rate(nixcsi_actor_handle_seconds_count{$of}[$__rate_interval])))",
                "{{actor}} {{message}}",
            ),
        Panel::stacked("Use of the actors' thread", "percentunit")
            .says("By actor. Good: far below 100 %, at which everything waits.")
            .ask(
                "sum by (actor) (rate(nixcsi_actor_handle_seconds_sum{$of}[$__rate_interval]))",
                "{{actor}}",
            ),
        Panel::lines("Restarts", "short")
            .says("In the time of a point, by actor and reason. Good: none; panicked is a bug. Runbook: \
                   NixCsiActorRestarted in docs/alerts.md.")
            .ask(
                "sum by (actor, reason) (increase(nixcsi_actor_restarts_total{$of}[$__rate_interval]))",
                "{{actor}} {{reason}}",
            ),
        Panel::lines("Undelivered", "ops")
            .says("Events to an actor that had already ended. Good: few, at ends of volumes.")
            .ask(
                "sum by (actor) (rate(nixcsi_actor_undelivered_total{$of}[$__rate_interval]))",
                "{{actor}}",
            ),
    ]
}

fn calls() -> Vec<Panel> {
    vec![
        Panel::row("gRPC"),
        Panel::stacked("Calls by method", "reqps")
            .says("CSI, registration and admin. Good: NodePublishVolume and NodeUnpublishVolume follow the pods.")
            .ask(
                "sum by (method) (rate(nixcsi_grpc_seconds_count{$of}[$__rate_interval]))",
                "{{method}}",
            )
            .size(8, 8),
        Panel::stacked("Calls that failed", "reqps")
            .says("By method and code. Good: none; ABORTED and DEADLINE_EXCEEDED are kubelets that ask again while \
                   something is built.")
            .ask(
                r#"sum by (method, code) (rate(nixcsi_grpc_seconds_count{$of,code!="OK"}[$__rate_interval]))"#,
                "{{method}} {{code}}",
            )
            .size(8, 8),
        Panel::lines("Time of a call", "s")
            .says("95 % take less, by method. Good: below two minutes, after which kubelets give up; \
                   NodeGetVolumeStats and NodeUnpublishVolume below a second. A stream lasts until it ends.")
            .ask(
                "histogram_quantile(0.95, sum by (le, method) (rate(nixcsi_grpc_seconds_bucket{$of}[$__rate_interval])))",
                "{{method}}",
            )
            .size(8, 8),
        Panel::lines("Calls under way", "short")
            .says("By method, of those that were called in the time shown. Good: back to 0 soon.")
            .ask(
                "sum by (method) (nixcsi_grpc_in_flight{$of}) and on (method) sum by (method) (increase(nixcsi_grpc_seconds_count{$of}[$__range])) > 0",
                "{{method}}",
            )
            .size(8, 8),
        Panel::lines("Registered with the kubelet", "bool_yes_no")
            .says("By node, where the driver registers itself. Good: yes. Runbook: NixCsiNotRegistered in docs/alerts.md.")
            .ask("min by (node, instance) (nixcsi_registered{$of})", "{{node}} {{instance}}")
            .up_to(1.0)
            .size(8, 8),
        Panel::lines("Registrations", "short")
            .says("What the kubelet made of the driver, in the time of a point. Good: registered, once for each start.")
            .ask(
                "sum by (outcome) (increase(nixcsi_registrations_total{$of}[$__rate_interval]))",
                "{{outcome}}",
            )
            .size(8, 8),
    ]
}

/// The driver's own among all processes that Prometheus knows.
fn of_driver(expression: &str) -> String {
    format!("{expression} and on (cluster, namespace, instance) nixcsi_ready{{$of}}")
}

fn process() -> Vec<Panel> {
    vec![
        Panel::row("Process"),
        Panel::lines("CPU", "percentunit")
            .says("Of one core, the driver alone: Nix and its builds are other processes. Good: far below 100 %.")
            .ask(
                &of_driver("rate(process_cpu_seconds_total{$of}[$__rate_interval])"),
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Memory", "bytes")
            .says("Resident. Good: it does not grow for days.")
            .ask(&of_driver("process_resident_memory_bytes{$of}"), "{{node}} {{instance}}")
            .size(8, 8),
        Panel::lines("Virtual memory", "bytes")
            .says("Address space, most of it never touched. Good: it does not grow for days.")
            .ask(&of_driver("process_virtual_memory_bytes{$of}"), "{{node}} {{instance}}")
            .size(8, 8),
        Panel::lines("Open files", "percentunit")
            .says("Of the process's limit. Good: below 50 %.")
            .ask(
                &of_driver("process_open_fds{$of} / process_max_fds{$of}"),
                "{{node}} {{instance}}",
            )
            .size(8, 8),
        Panel::lines("Threads", "short")
            .says("Good: they do not grow for days.")
            .ask(&of_driver("process_threads{$of}"), "{{node}} {{instance}}")
            .size(8, 8),
        Panel::lines("Runs since", "s")
            .says("Since the driver was started. Good: since the last upgrade. Runbook: NixCsiCrashLooping in \
                   docs/alerts.md.")
            .ask(
                &of_driver("time() - process_start_time_seconds{$of}"),
                "{{node}} {{instance}}",
            )
            .size(8, 8),
    ]
}

fn children() -> Vec<Panel> {
    vec![
        Panel::row("Children and configuration"),
        Panel::lines("Children serve", "short")
            .says("nix-daemon and sshd of all chosen drivers. Good: as many of each as drivers have one.")
            .ask("sum by (child) (nixcsi_child_up{$of})", "{{child}}")
            .size(8, 8),
        Panel::lines("Exits of children", "short")
            .says("In the time of a point. Good: none. Runbook: NixCsiChildCrashLooping in docs/alerts.md.")
            .ask(
                "sum by (child) (increase(nixcsi_child_exits_total{$of}[$__rate_interval]))",
                "{{child}}",
            )
            .size(8, 8),
        Panel::lines("Replaced children", "short")
            .says("For a new configuration in the time of a point, and how many end what they had begun. Good: those go.")
            .ask(
                "sum by (child) (increase(nixcsi_child_renewals_total{$of}[$__rate_interval]))",
                "{{child}} renewed",
            )
            .ask("sum by (child) (nixcsi_children_retired{$of})", "{{child}} retired")
            .size(8, 8),
        Panel::lines("Configuration refused", "short")
            .says("Mounted files that can't be used; what was good last counts. Good: 0. Runbook: NixCsiConfigRefused \
                   in docs/alerts.md.")
            .ask("sum by (kind) (nixcsi_config_refused{$of})", "{{kind}}")
            .size(8, 8),
        Panel::lines("Configuration written", "short")
            .says("Files for daemons written anew in the time of a point. Good: at starts and changes alone.")
            .ask(
                "sum by (kind) (increase(nixcsi_config_writes_total{$of}[$__rate_interval]))",
                "{{kind}}",
            )
            .size(8, 8),
        Panel::lines("Log lines left out", "short")
            .says("Warnings and errors like one of a moment ago, in the time of a point. Good: none; else the log says \
                   of what there are so many.")
            .ask(
                "sum by (level) (increase(nixcsi_log_suppressed_total{$of}[$__rate_interval]))",
                "{{level}}",
            )
            .size(8, 8),
    ]
}
