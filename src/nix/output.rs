//! What `nix build --json` prints, in all shapes of all versions, and which output is taken. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::{Source, StorePath};

use super::{NixError, RealiseError, Step};

/// One installable's result. Newer versions add keys, which are ignored.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Built {
    /// 2.34 for a store path.
    Plain(String),
    /// 2.8 for a store path.
    Path { path: String },
    /// A derivation. An output is `null` when it is not known, such as after a dry run.
    Outputs { outputs: BTreeMap<String, Option<String>> },
}

/// The one path that the volume's `var/result` is going to point to.
pub(super) fn chosen(source: &Source, stdout: &[u8]) -> Result<StorePath, RealiseError> {
    let results: Vec<Built> = serde_json::from_slice(stdout).map_err(|err| {
        RealiseError::Store(NixError::Command {
            what: "nix build --json".to_owned(),
            detail: format!("it printed what is not understood: {err}"),
        })
    })?;
    let result = match &results[..] {
        [result] => result,
        [] => {
            return Err(refused("it evaluates to nothing that can be built".to_owned()));
        }
        several => {
            let cause = format!("it evaluates to {} derivations", several.len());
            return Err(refused(cause));
        }
    };
    let text = match result {
        Built::Plain(path) | Built::Path { path } => path,
        Built::Outputs { outputs } => {
            output(outputs).ok_or_else(|| refused("it has no output".to_owned()))?
        }
    };
    let path = StorePath::parse(text).map_err(|reason| refused(reason.to_string()))?;
    match source {
        Source::StorePath(wanted) if *wanted != path => {
            Err(refused(format!("{wanted} is a derivation")))
        }
        _ => Ok(path),
    }
}

/// `out`, else `bin`, else the first by name.
fn output(outputs: &BTreeMap<String, Option<String>>) -> Option<&String> {
    ["out", "bin"]
        .iter()
        .find_map(|name| outputs.get(*name)?.as_ref())
        .or_else(|| outputs.values().find_map(Option::as_ref))
}

fn refused(cause: String) -> RealiseError {
    RealiseError::Refused {
        step: Step::Evaluate,
        cause,
        hint: Some("a volume holds exactly one output of one derivation".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::recorded;

    #[test]
    fn recorded_shapes_are_parsed() {
        for (name, result) in [
            ("ok", Some("ok")),
            ("path", Some("ok")),
            ("flake", Some("fl")),
            ("empty", None),
            ("list2", None),
        ] {
            for case in recorded::cases().into_iter().filter(|c| c.name == name) {
                let source = Source::NixExpr("x".into());
                let stdout = case.stdout.unwrap();
                let chosen = chosen(&source, stdout.as_bytes());
                assert_eq!(
                    chosen.as_ref().ok().map(StorePath::name),
                    result,
                    "{name} of {}: {chosen:?}",
                    case.version
                );
            }
        }
    }

    #[test]
    fn out_comes_before_bin_before_the_first() {
        let path = |name: &str| format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{name}");
        for (names, expected) in [
            (vec!["bin", "dev", "out"], "out"),
            (vec!["bin", "dev"], "bin"),
            (vec!["lib", "dev"], "dev"),
        ] {
            let outputs: BTreeMap<_, _> = names.iter().map(|n| (*n, path(n))).collect();
            let json = serde_json::json!([{ "drvPath": "x", "outputs": outputs, "startTime": 1 }]);
            let source = Source::FlakeRef("x".into());
            let chosen = chosen(&source, json.to_string().as_bytes()).unwrap();
            assert_eq!(chosen.name(), expected);
        }
    }

    #[test]
    fn a_path_below_a_store_path_and_a_derivation_are_refused() {
        let hash = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz";
        let below = serde_json::json!([format!("{hash}-x/sub")]).to_string();
        let error = chosen(&Source::NixExpr("x".into()), below.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), "refused");
        let source = Source::StorePath(StorePath::parse(&format!("{hash}-x.drv")).unwrap());
        let other = serde_json::json!([format!("{hash}-x")]).to_string();
        assert_eq!(chosen(&source, other.as_bytes()).unwrap_err().kind(), "refused");
        assert_eq!(chosen(&source, b"{}").unwrap_err().kind(), "store");
    }
}
