//! A policy, and what it says of a flake reference, which is taken for a substituter's URL too.

use std::time::Duration;

use super::{refusal, text};
use crate::model::{
    Access, Attributes, Layout, Limits, MIN_EVALUATION_MEMORY, Policy, Rules, Source, VolumeSize,
    VolumeSpec,
};

/// A namespace, a flake reference, and from the third line on the policy.
pub(crate) fn policy(data: &[u8]) {
    let text = text(data);
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (namespace, reference, policy) = (part(), part(), part());
    let policy = match Policy::parse(policy) {
        Ok(policy) => policy,
        Err(error) => return refusal(&error),
    };
    assert_eq!(policy.rules(namespace), policy.rules(namespace));
    let rules = policy.rules(namespace);
    limits(rules);
    for count in [0, 1, u32::MAX] {
        let _ = rules.check_count(count).map_err(|why| refusal(&why.text("team")));
    }
    if let Some(from) = rules.fetch_from() {
        refusal(&from);
        let listed = rules.list();
        let (_, allowed, _) =
            listed.iter().find(|(key, ..)| *key == "substituters").expect("its row");
        let scheme =
            |url: &str| url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_known = allowed.split(", ").any(|entry| scheme(entry) == scheme(reference));
        assert!(is_known || !from.allows(reference), "{reference:?}");
        let known = |urls: &[&str]| from.unknown_to(urls).len();
        assert_eq!(from.allows(reference), known(&[reference]) < known(&[]), "{reference:?}");
    }
    for source in [Source::FlakeRef(reference.to_owned()), Source::NixExpr(reference.to_owned())] {
        for size in [None, Some(VolumeSize::MIN)] {
            if let Err(why) = rules.check(&asked(source.clone(), size)) {
                refusal(&why.text("team"));
                continue;
            }
            if let Source::FlakeRef(reference) = &source {
                let listed = rules.list();
                let (_, allowed, _) =
                    listed.iter().find(|(key, ..)| *key == "flakeRef").expect("its row");
                let begins = |prefix: &str| reference.starts_with(prefix);
                assert!(allowed == "true" || allowed.split(", ").any(begins), "{reference:?}");
                plain(reference, allowed);
            }
        }
    }
}

/// A limit lets something through, and what `explain` shows of it can be written so.
fn limits(rules: &Rules) {
    let limits = rules.limits();
    assert!(limits.time().is_none_or(|time| time.most >= Duration::from_secs(1)));
    assert!(limits.memory().is_none_or(|memory| memory.most >= MIN_EVALUATION_MEMORY));
    assert!([limits.builds(), limits.evaluations()].iter().flatten().all(|bound| bound.most > 0));
    let keys = ["maxBuilds", "maxEvaluations", "evaluationTime", "evaluationMemory"];
    let listed = rules.list();
    let rows = listed.iter().filter(|(key, ..)| keys.contains(key));
    let written = rows.map(|(key, value, _)| match value.parse::<u64>() {
        Ok(bytes) if *key == "evaluationMemory" => format!("{key}: '{bytes}'"),
        _ => format!("{key}: {value}"),
    });
    let written = written.collect::<Vec<_>>().join(", ");
    let again = Policy::parse(&format!("preset: open\ndefault: {{{written}}}")).expect(&written);
    let again = again.rules("team").limits();
    assert_eq!(again.time().map(|b| b.most), limits.time().map(|b| b.most), "{written}");
    assert_eq!(again.memory().map(|b| b.most), limits.memory().map(|b| b.most), "{written}");
    let counts = |of: &Limits| [of.builds(), of.evaluations()].map(|b| b.map(|b| b.most));
    assert_eq!(counts(again), counts(limits), "{written}");
}

/// What is allowed by where it begins stays there.
fn plain(reference: &str, allowed: &str) {
    let address = reference.split(['?', '#']).next().unwrap_or_default();
    let odd = |part: &str| matches!(part, "." | "..");
    assert!(allowed == "true" || !address.split(['/', ':']).any(odd), "{reference:?}");
    assert!(allowed == "true" || !address.contains(['%', '\\', ' ']), "{reference:?}");
}

fn asked(source: Source, size: Option<VolumeSize>) -> VolumeSpec {
    VolumeSpec {
        access: Access::Writable,
        access_mode: 1,
        attributes: Attributes::default(),
        source,
        pod: None,
        layout: Layout::Plain,
        size,
        secret: None,
        tokens: None,
    }
}
