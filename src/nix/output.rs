//! What `nix build --dry-run --json` prints, in all shapes of all versions, and which output is taken.
//! Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::StorePath;
use crate::read::short;

use super::{Buildable, Evaluated, NixError, RealiseError, Step};

/// One installable's result. Newer versions add keys, which are ignored.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Built {
    /// 2.34 for a store path.
    Plain(String),
    /// 2.8 for a store path.
    Path { path: String },
    /// A derivation. An output is `null` when its path is only known once it is built.
    Outputs {
        #[serde(rename = "drvPath")]
        derivation: String,
        outputs: BTreeMap<String, Option<String>>,
    },
}

/// The one derivation and output, or the one path, that the volume's `var/result` is going to
/// point to.
pub(super) fn evaluated(stdout: &[u8]) -> Result<Evaluated, RealiseError> {
    let results: Vec<Built> = serde_json::from_slice(stdout).map_err(|err| {
        RealiseError::Store(NixError::Command {
            what: "nix build --dry-run --json".to_owned(),
            detail: format!("it printed what is not understood: {}", short(&err)),
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
    match result {
        Built::Plain(path) | Built::Path { path } => {
            let path = parse(path)?;
            if path.name().strip_suffix(".drv").is_some() {
                return Err(refused(format!("it evaluates to the file {path}")));
            }
            Ok(Evaluated { buildable: Buildable::Path(path.clone()), path: Some(path) })
        }
        Built::Outputs { derivation, outputs } => {
            let (output, path) =
                chosen(outputs).ok_or_else(|| refused("it has no output".to_owned()))?;
            let path = path.as_deref().map(parse).transpose()?;
            let (derivation, output) = (parse(derivation)?, output.clone());
            Ok(Evaluated { buildable: Buildable::Output { derivation, output }, path })
        }
    }
}

fn parse(path: &str) -> Result<StorePath, RealiseError> {
    StorePath::parse(path).map_err(|reason| refused(reason.to_string()))
}

/// `out`, else `bin`, else the first by name.
fn chosen(outputs: &BTreeMap<String, Option<String>>) -> Option<(&String, &Option<String>)> {
    let named = ["out", "bin"].into_iter().find_map(|name| outputs.get_key_value(name));
    named.or_else(|| outputs.iter().next())
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
                let evaluated = evaluated(case.stdout.unwrap().as_bytes());
                assert_eq!(
                    evaluated.as_ref().ok().map(|e| e.path.as_ref().unwrap().name()),
                    result,
                    "{name} of {}: {evaluated:?}",
                    case.version
                );
            }
        }
    }

    const HASH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz";

    #[test]
    fn out_comes_before_bin_before_the_first() {
        for (names, expected) in [
            (vec!["bin", "dev", "out"], "out"),
            (vec!["bin", "dev"], "bin"),
            (vec!["lib", "dev"], "dev"),
        ] {
            let path = |name: &str| format!("{HASH}-{name}");
            let outputs: BTreeMap<_, _> = names.iter().map(|n| (*n, path(n))).collect();
            let json = serde_json::json!([{ "drvPath": path("x.drv"), "outputs": outputs }]);
            let Evaluated { buildable, path } = evaluated(json.to_string().as_bytes()).unwrap();
            let derivation = StorePath::parse(&format!("{HASH}-x.drv")).unwrap();
            assert_eq!(buildable, Buildable::Output { derivation, output: expected.to_owned() });
            assert_eq!(path.unwrap().name(), expected);
        }
    }

    #[test]
    fn an_output_may_be_unknown_until_it_is_built() {
        let json = format!(r#"[{{"drvPath":"{HASH}-x.drv","outputs":{{"out":null}}}}]"#);
        assert_eq!(evaluated(json.as_bytes()).unwrap().path, None);
    }

    #[test]
    fn a_path_below_a_store_path_and_a_derivation_are_refused() {
        for path in ["x/sub", "x.drv"] {
            let json = serde_json::json!([format!("{HASH}-{path}")]).to_string();
            assert_eq!(evaluated(json.as_bytes()).unwrap_err().kind(), "refused");
        }
        assert_eq!(evaluated(b"{}").unwrap_err().kind(), "store");
    }
}
