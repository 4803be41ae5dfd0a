//! Evaluations and builds that reach a limit, and what only the network or the disk is to blame for.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::realise::derivation;
use crate::refusal::{Case, check};

const LIMITS: &[&str] =
    &["--eval-memory", "512MiB", "--eval-timeout", "3s", "--build-timeout", "1s"];

fn cases() -> Vec<Case> {
    let evaluate = |text: &str, code, expected: &str| Case::new("nixExpr", text, code, expected);
    let build = |script: &str, code, expected: &str| {
        Case::new("nixExpr", &derivation(script), code, expected)
    };
    let fixed = |script: &str, code, expected: &str| {
        let text = derivation(script).replace(
            "PATH =",
            "outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"; \
             outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; PATH =",
        );
        Case::new("nixExpr", &text, code, expected)
    };
    vec![
        evaluate(
            "builtins.length (builtins.genList (x: x) 1000000000)",
            Code::InvalidArgument,
            "evaluate failed after N s: it needs more than 512 MiB of memory (the operator raises \
             --eval-memory)",
        ),
        evaluate(
            "let f = n: if n < 2 then 1 else f (n - 1) + f (n - 2); in f 60",
            Code::DeadlineExceeded,
            "evaluate took longer than 3s: raise --eval-timeout",
        ),
        // With a trace in Nix's words; the place in the request's own text is what helps.
        evaluate(
            "let\n  pkg = name: { inherit name; out = missing.${name}; };\n  missing = { };\n\
             in (builtins.map (n: (pkg n).out) [ \"hello\" ])",
            Code::InvalidArgument,
            "evaluate failed after N s: attribute 'hello' missing, at line 2 column 37",
        ),
        evaluate(
            "let a = b; b = a; in { inherit a; }.a",
            Code::InvalidArgument,
            "evaluate failed after N s: infinite recursion encountered, at line 1 column 9",
        ),
        build(
            "echo begun; sleep 1000",
            Code::DeadlineExceeded,
            "build of broken took longer than 1s: raise --build-timeout\nlast lines of its log:\n  \
             begun",
        ),
        build(
            "echo working; kill -9 $$",
            Code::FailedPrecondition,
            "build of broken failed after N s: builder failed due to signal 9 (Killed) (something \
             killed it; the node may be short of memory)\nlast lines of its log:\n  working",
        ),
        fixed(
            "echo a > $out",
            Code::FailedPrecondition,
            "build of broken failed after N s: hash mismatch: specified \
             sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=, got \
             sha256-h0KPxSKAPTEGXnvOPPA/5HUJZjHl4Hu9eg/eYMTPJcc=",
        ),
        // What is fixed may fetch: its network failure is no fault of the derivation.
        fixed(
            "echo 'curl: (6) Could not resolve host: example.invalid'; exit 6",
            Code::Unavailable,
            "fetch failed for now after N s: broken: builder failed with exit code 6: curl: (6) Could \
             not resolve host: example.invalid",
        ),
        build(
            "echo 'curl: (6) Could not resolve host: example.invalid'; exit 6",
            Code::FailedPrecondition,
            "build of broken failed after N s: builder failed with exit code 6\nlast lines of its \
             log:\n  curl: (6) Could not resolve host: example.invalid",
        ),
    ]
}

#[tokio::test]
async fn a_limit_says_which_it_is_and_what_raises_it() {
    let lab = lab!();
    let node = lab.node(LIMITS).await;
    check(&lab, &node, &cases()).await;
}

#[tokio::test]
async fn a_silent_build_is_told_from_a_slow_one() {
    let lab = lab!();
    let node = lab.node(&["--max-silent-time", "1s", "--build-timeout", "30s"]).await;
    let case = Case::new(
        "nixExpr",
        &derivation("echo hello; sleep 1000"),
        Code::DeadlineExceeded,
        "build of broken printed nothing for 1s: raise --max-silent-time\nlast lines of its log:\n  \
         hello",
    );
    check(&lab, &node, &[case]).await;
}

/// "Nobody has it" is not known while a substituter is down.
#[tokio::test]
async fn a_substituter_that_is_down_is_named() {
    let lab = lab!();
    // A port that nobody else gets while it is bound, and that refuses.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    drop(deaf);
    let url = format!("http://user:secret@127.0.0.1:{port}/cache");
    let node = lab.node(&["--nix-option", &format!("substituters={url}")]).await;
    let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody";
    let case = Case::new(
        "storePath",
        path,
        Code::Unavailable,
        &format!(
            "fetch failed for now after N s: no substituter that answers has {path}, and \
             http://127.0.0.1:{port}/cache does not answer: can't connect to 127.0.0.1:{port}: \
             Connection refused (os error 111) (it is asked again in N s)"
        ),
    );
    check(&lab, &node, &[case]).await;
    assert!(!node.log().contains("secret"), "{}", node.log());
    assert!(node.metrics().contains("nixcsi_substituters_down 1"));
}
