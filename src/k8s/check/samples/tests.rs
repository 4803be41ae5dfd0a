//! Metrics as pods give them, and what is said of them.

use super::*;
use crate::actors::registry::BuilderState;
use crate::k8s::Verdict;
use crate::nix::PUSH_ENDS;

fn node(end: &str) -> Samples {
    let lines = PUSH_ENDS.map(|known| {
        format!("nixcsi_cache_last_upload{{end=\"{known}\"}} {}\n", u8::from(known == end))
    });
    let pushes = "nixcsi_upload_seconds_count{outcome=\"ok\"} 3\n\
                  nixcsi_upload_seconds_count{outcome=\"temporary\"} 2\n\
                  nixcsi_upload_seconds_sum{outcome=\"ok\"} 77\n";
    Samples::new(format!("# TYPE x gauge\nnixcsi_volumes 1\n{}{pushes}", lines.concat()))
}

fn asked(name: &str, end: &str) -> Asked {
    (name.to_owned(), Ok(node(end)))
}

#[test]
fn families_are_those_of_the_driver() {
    crate::actors::uploads::metrics::show_last_upload("key-refused");
    crate::actors::registry::metrics::show_all();
    crate::actors::uploads::metrics::UPLOAD_SECONDS.with_label_values(&["ok"]).observe(1.0);
    let real = Samples::new(crate::metrics::render().unwrap());
    assert_eq!(real.last_upload(), Some("key-refused"));
    assert!(real.pushes() >= 1.0);
    let mut states: Vec<_> = real.family(BUILDERS_BY_STATE).map(|(state, _)| state).collect();
    let mut all = BuilderState::ALL.map(BuilderState::as_str);
    all.sort_unstable();
    states.sort_unstable();
    assert_eq!(states, all);
}

#[test]
fn pushes_of_all_ends_count() {
    assert!((node("ok").pushes() - 5.0).abs() < f64::EPSILON);
}

#[test]
fn each_end_of_an_upload_has_a_reason_and_a_way_out_of_its_own() {
    let mut ways = std::collections::BTreeSet::new();
    let bad = PUSH_ENDS.into_iter().filter(|end| !matches!(*end, "ok" | "none"));
    for end in bad.clone() {
        let row = cache(&[asked("a", "ok"), asked("b", end)]);
        assert_eq!(row.verdict, Verdict::Failed, "{end}");
        assert!(row.found.starts_with("b: ") && row.found.contains(&format!("({end})")), "{row:?}");
        ways.insert(row.way_out.unwrap());
    }
    assert_eq!(ways.len(), bad.count());
    let (down, key) = (cache(&[asked("a", "unreachable")]), cache(&[asked("a", "key-refused")]));
    assert_eq!(down.found, "a: the cache did not answer (unreachable)");
    assert_eq!(key.found, "a: the cache refused the node's ssh key (key-refused)");
}

#[test]
fn nodes_without_a_cache_are_skipped_and_those_that_say_nothing_fail() {
    let without = || ("a".to_owned(), Ok(Samples::new("nixcsi_volumes 1\n".to_owned())));
    assert_eq!(cache(&[without()]).verdict, Verdict::Skipped);
    assert_eq!(cache(&[]).verdict, Verdict::Skipped);
    assert_eq!(cache(&[asked("a", "none")]).verdict, Verdict::Skipped);
    let row = cache(&[asked("a", "ok"), asked("b", "none"), without()]);
    assert_eq!(row.verdict, Verdict::Ok);
    assert_eq!(row.found, "the last upload of 1 nodes succeeded; 1 had none yet");
    let row = cache(&[("a".to_owned(), Err("forbidden".to_owned()))]);
    assert!(row.verdict == Verdict::Failed && row.found.contains("forbidden"));
    assert!(row.way_out.unwrap().contains("pods/proxy"));
}

#[test]
fn builders_are_listed_by_state_and_those_left_out_are_failures() {
    let of = |counts: &[(&str, u32)]| {
        let lines = counts.iter().map(|(s, n)| format!("nixcsi_builders{{state=\"{s}\"}} {n}\n"));
        builders(&[("nix-cache-0".to_owned(), Ok(Samples::new(lines.collect())))])
    };
    for (counts, verdict, found) in [
        (&[("ready", 2), ("benched", 0)][..], Verdict::Ok, "2 ready"),
        (&[("ready", 2), ("not-ready", 1)], Verdict::Ok, "2 ready, 1 not-ready"),
        (&[("ready", 2), ("benched", 1)], Verdict::Failed, "2 ready, 1 benched"),
        (&[("ready", 2), ("invalid", 1)], Verdict::Failed, "2 ready, 1 invalid"),
        (&[("ready", 0), ("benched", 0)], Verdict::Failed, "none"),
        (&[], Verdict::Skipped, "the cache has no --builder-namespace"),
    ] {
        let row = of(counts);
        assert_eq!((row.verdict, &*row.found), (verdict, found));
    }
    assert_eq!(builders(&[]).verdict, Verdict::Skipped);
    assert_eq!(builders(&[("c".to_owned(), Err("x".to_owned()))]).verdict, Verdict::Failed);
}
