//! What an expression costs: evaluated in the jail although its result is in the store, known from
//! the publish before, and built; beside a `nix build` of the same text by root, with no jail and no
//! mount.

use std::process::Stdio;

use tokio::time::Instant;

use crate::Bench;
use crate::report::Row;

/// None of the machine's tools, so that no sandbox setting matters.
fn derivation(name: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo {name} > $out\" ]; }}"
    )
}

impl Bench<'_> {
    pub async fn expressions(&mut self, rounds: usize) {
        eprintln!("expressions");
        let row = |name| Row::ours(name, "expression");
        let text = derivation("evaluated");
        let warm = self.volume_of("nixExpr", &text);
        self.node.publish(&warm).await.unwrap();
        self.node.unpublish(&warm).await.unwrap();
        for round in 0..rounds {
            let volume = self.volume_of("nixExpr", &derivation(&format!("built-{round}")));
            self.publish(row("publish-built"), &volume).await;
            self.unpublish(row("unpublish-built"), &volume).await;
            self.nix_build("publish-built", &derivation(&format!("nix-{round}")));

            // Another text, the same derivation.
            let other = format!("{text} # {round}");
            let volume = self.volume_of("nixExpr", &other);
            self.publish(row("publish-evaluated"), &volume).await;
            self.unpublish(row("unpublish-evaluated"), &volume).await;
            self.nix_build("publish-evaluated", &other);

            self.publish(row("publish-known"), &volume).await;
            self.unpublish(row("unpublish-known"), &volume).await;
            self.call(row("grpc-call")).await;
        }
    }

    /// What a person would type on the node.
    fn nix_build(&mut self, name: &'static str, text: &str) {
        let socket = self.lab.path("run/nix-daemon/socket");
        let began = Instant::now();
        let status = std::process::Command::new("nix")
            .args(["--extra-experimental-features", "nix-command"])
            .args(["build", "--no-link", "--impure", "--expr", text])
            .env("NIX_REMOTE", format!("unix://{}", socket.display()))
            .env("HOME", self.lab.path("run"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        self.report.add(Row::other(name, "expression", "nix build"), began.elapsed());
        assert!(status.unwrap().success());
    }
}
