//! A container's environment has addresses of every Service, and what an operator has put into it.

use std::fs;

use crate::lab::until;
use crate::planted;
use crate::world::{SANDBOXED, builder, of_pod};

/// Cargo's own, which the node has from its test.
const VARIABLE: &[u8] = b"CARGO_MANIFEST_DIR=";

#[tokio::test(flavor = "multi_thread")]
async fn no_child_has_the_drivers_environment() {
    let lab = planted!();
    let node = lab.node(SANDBOXED).await;
    let endless = "let f = n: if n < 2 then 1 else f (n - 1) + f (n - 2); in f 60";
    let evaluation = of_pod(lab.volume("evaluation", &[("nixExpr", endless)]), "web");
    let sleep = builder("sleep", "", "$b sleep 98764; $b true");
    let build = of_pod(lab.volume("build", &[("nixExpr", &sleep)]), "db");
    let environ = |line: &String| {
        let pid = line.split(' ').next().unwrap();
        fs::read(lab.proc().join(pid).join("environ")).unwrap_or_default()
    };
    let has = |environ: &[u8]| environ.windows(VARIABLE.len()).any(|part| part == VARIABLE);
    let looks = async {
        let run = |is_it: &dyn Fn(&str) -> bool| {
            lab.processes().iter().filter(|line| is_it(line)).count() >= 2
        };
        // The guard and the evaluator; the builder's shell and its program, which are not the evaluation of
        // their text.
        let is_evaluated = |line: &str| line.contains("f 60");
        let is_built = |line: &str| line.contains("sleep 98764") && !line.contains("derivation");
        until("both", async || run(&is_evaluated) && run(&is_built)).await;
        // One that has just ended has none.
        let all = lab.processes().into_iter().map(|line| (environ(&line), line));
        let all: Vec<_> = all.filter(|(environ, _)| !environ.is_empty()).collect();
        for volume in [&evaluation, &build] {
            node.unpublish(volume).await.unwrap();
        }
        all.into_iter().partition::<Vec<_>, _>(|(environ, _)| has(environ))
    };
    let (_, _, (have, have_not)) =
        tokio::join!(node.publish(&evaluation), node.publish(&build), looks);
    let [have, have_not] =
        [have, have_not].map(|all| all.into_iter().map(|(_, line)| line).collect::<Vec<_>>());
    assert!(have.len() == 1 && have[0].contains("nix-csi node"), "{have:#?}");
    for what in ["f 60", "98764", "nix-daemon"] {
        assert!(have_not.iter().filter(|line| line.contains(what)).count() >= 2, "{have_not:#?}");
    }
}
