//! A pod's service-account tokens, exchanged by the operator's program for what opens a private source.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::jail::{Guard, capabilities};
#[cfg(any(test, fuzzing))]
use crate::model::{ACCESS_TOKENS, NETRC};
use crate::model::{PodTokens, Secret};

use super::exit::Exit;
use super::real::Inner;
use super::redact::Redactor;
use super::{Limit, RealiseError, Step, TimedOut, check_access_tokens, command, process};

/// Longest time of one exchange.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of its last words.
const MAX_SHOWN: usize = 300;

/// The program has the request on its standard input, and answers with JSON: a Secret's keys. `Ok(None)`: it
/// has nothing to give.
pub(super) async fn exchange(
    nix: Arc<Inner>,
    tokens: PodTokens,
) -> Result<Option<Secret>, RealiseError> {
    let config = &nix.config;
    let Some(program) = &config.token_exchange else { return Ok(None) };
    let request = tokens.request().as_bytes();
    let mut spec = command::spec(config, program.clone(), Vec::new());
    // It asks whom it knows, and has to do with no store.
    spec.env.retain(|(name, _)| name != "NIX_REMOTE" && name != "NIX_USER_CONF_FILES");
    spec.guard = config.guard.clone().map(|binary| {
        let keeps = config.keeps(capabilities::NOTHING);
        let filtered = config.least_privilege;
        (binary, Guard { config_bytes: request.len(), keeps, filtered, ..Guard::default() })
    });
    let mut said = Vec::new();
    let on_line = |line: &[u8]| said = line.to_vec();
    let limit = Limit::new("--token-exchange", LIMIT);
    let Some(ended) = limit.bound(process::run(&spec, request, on_line, ())).await else {
        return Err(TimedOut::whole(Step::Fetch, limit).into());
    };
    let (ended, ()) = ended?;
    let failed = |why: &str| {
        let cause = format!("the token exchange ({}) {why}", program.display());
        RealiseError::Temporary { step: Step::Fetch, cause }
    };
    if !ended.exit.is_ok() {
        let redactor = Redactor::new(tokens.tokens().iter().cloned());
        let said = redactor.shown_line(&String::from_utf8_lossy(&said), MAX_SHOWN);
        let how = match ended.exit {
            exit if exit.is_of_refused_call() => format!("failed: {exit}"),
            Exit::Code(code) => format!("failed with {code}"),
            Exit::Signal(_) => "was ended by a signal".to_owned(),
        };
        return Err(failed(&format!("{how}: {said}")));
    }
    answered(&ended.stdout).map_err(|why| failed(&why))
}

/// A Secret's keys as JSON. An error has nothing of what was said.
fn answered(said: &[u8]) -> Result<Option<Secret>, String> {
    let given: HashMap<String, String> = serde_json::from_slice(said)
        .map_err(|_| "answered with what is no JSON object of texts".to_owned())?;
    let secret = Secret::parse(given).map_err(|_| {
        "answered with more than access-tokens and netrc, of 32768 bytes each".to_owned()
    })?;
    if let Some(secret) = &secret {
        check_access_tokens(secret.access_tokens())
            .map_err(|why| format!("answered with access-tokens that are none: {why}"))?;
    }
    Ok(secret)
}

/// What is taken is what was given, and what is refused is shown to nobody.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    match answered(data) {
        Ok(secret) => {
            let given: HashMap<String, String> = serde_json::from_slice(data).expect("an object");
            let text = |key| given.get(key).map_or("", |text: &String| text.trim());
            let all = [text(ACCESS_TOKENS), text(NETRC)];
            let taken = secret.as_ref().map(|secret| [secret.access_tokens(), secret.netrc()]);
            assert_eq!(taken.unwrap_or_default().map(str::trim), all);
            assert!(given.keys().all(|key| [ACCESS_TOKENS, NETRC].contains(&&**key)));
            assert!(all.iter().all(|text| text.len() <= 32 << 10));
            check_access_tokens(all[0]).expect("tokens");
        }
        Err(why) => {
            let bad = ["", r#"{"token":"x"}"#, r#"{"access-tokens":"x"}"#];
            let known = bad.map(|bad| answered(bad.as_bytes()).expect_err(bad));
            assert!(known.contains(&why), "{why:?}");
        }
    }
}
