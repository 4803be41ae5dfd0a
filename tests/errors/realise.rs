//! Sources that can't be built or fetched.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::refusal::{Case, check};

const NOBODY: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody";

pub fn derivation(script: &str) -> String {
    format!(
        "derivation {{ name = \"broken\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; args = [ \"-c\" ''{script}'' ]; }}"
    )
}

fn cases() -> Vec<Case> {
    let failed = |script: &str, expected: &str| {
        let text = format!("build of broken failed after N s: {expected}");
        Case::new("nixExpr", &derivation(script), Code::FailedPrecondition, &text)
    };
    let tail = |line: &dyn Fn(usize) -> String| {
        let lines: Vec<String> = (3..=12).map(line).collect();
        format!("builder failed with exit code 3\nlast lines of its log:\n  {}", lines.join("\n  "))
    };
    vec![
        Case::new(
            "storePath",
            NOBODY,
            Code::NotFound,
            &format!(
                "fetch failed after N s: {NOBODY} is not in the node's store and no substituter has it (copy it to a \
                 substituter that this node uses, or check the path)"
            ),
        ),
        failed(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 3",
            &tail(&|i| format!("line {i}")),
        ),
        // A builder's colours, and lines as long as a linker's command.
        failed(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
               printf 'line %s: \\033[31m' $i; head -c 30000 /dev/zero | tr '\\000' x; echo
             done; exit 3",
            &tail(&|i| {
                let line = format!("line {i}: ");
                format!("{line}{}", "x".repeat(400 - line.len()))
            }),
        ),
        failed(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
               for j in 0 1 2 3 4 5 6 7 8 9; do printf '€€€€€€€€€€€€€€€€€€€€'; done; echo
             done; exit 3",
            &tail(&|_| "€".repeat(133)),
        ),
        failed("true", "failed to produce output path for output 'out'"),
        Case::new(
            "nixExpr",
            "derivation { name = \"w\"; system = \"riscv64-linux\"; builder = \"/bin/sh\"; }",
            Code::InvalidArgument,
            "build failed after N s: w: a 'riscv64-linux' with features {} is required (no builder of this \
             cluster has that system and these features)",
        )
        .on(
            "2.34",
            "build failed after N s: w: Required system: 'riscv64-linux' (no builder of this cluster has \
             that system and these features)",
        ),
        Case::new(
            "nixExpr",
            &format!("import ({})", derivation("echo 1 > $out")),
            Code::InvalidArgument,
            "evaluate failed after N s: cannot build '/nix/store/HASH-broken.drv^out' during evaluation \
             because the option 'allow-import-from-derivation' is disabled (import-from-derivation \
             is off on this node: build that part in advance, or the operator sets \
             --allow-import-from-derivation)",
        )
        .on(
            "2.8",
            "evaluate failed after N s: cannot build '/nix/store/HASH-broken.drv' during evaluation because \
             the option 'allow-import-from-derivation' is disabled (import-from-derivation is off \
             on this node: build that part in advance, or the operator sets \
             --allow-import-from-derivation)",
        ),
    ]
}

#[tokio::test]
async fn a_failed_build_shows_the_end_of_its_log() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    check(&lab, &node, &cases()).await;
}
