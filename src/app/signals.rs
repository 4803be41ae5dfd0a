//! The signals that end a process.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn unless_signalled_again(stopping: impl Future<Output = ()>) {
    tokio::select! {
        () = stopping => {}
        signal = first_signal() => {
            tracing::warn!(signal, "second signal: exit at once");
            crate::telemetry::flush();
            std::process::exit(1); // the runtime's end would wait for work on the disk
        }
    }
}

pub(super) async fn first_signal() -> &'static str {
    let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut term), Ok(mut int)) = (term, int) else {
        tracing::error!("can't listen to signals");
        tokio::time::sleep(Duration::MAX).await;
        return "none";
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
