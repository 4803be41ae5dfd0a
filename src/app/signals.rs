//! The signals that end a process.

use std::future::pending;
use std::pin::pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
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

/// From now on, a signal ends the process at once: for its end, where nothing is awaited any more and the runtime goes.
pub(super) fn end_at_a_signal() {
    let (not_yet, listens) = mpsc::channel::<()>();
    thread::spawn(|| {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "can't listen to signals"),
        };
        runtime.block_on(async move {
            let mut at_a_signal = pin!(unless_signalled_again(pending()));
            // It listens once it was asked.
            let _ = futures::poll!(&mut at_a_signal);
            drop(not_yet);
            at_a_signal.await;
        });
    });
    let _ = listens.recv();
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
