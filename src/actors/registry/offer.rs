//! What a pod says of itself as a builder, in annotations under `nix.csi.store/`:
//!
//! - `builder`: `false` takes the pod out;
//! - `builder-systems`: comma list of systems;
//! - `builder-max-jobs`, `builder-speed-factor`: whole numbers;
//! - `builder-features`, `builder-mandatory-features`: comma lists, which may be empty.
//!
//! What is absent is as the builder's sshd says, and what that does not say as the settings have it. A
//! value that can't be read leaves the builder out: what its writer meant is unknown, and a builder without
//! a limit or a feature would fail later and elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use crate::k8s::ANNOTATIONS;
use crate::model::{Announcement, Feature, System};

const MAX_NUMBER: u32 = 10_000;
const MAX_ITEMS: usize = 100;

const FLAG: &str = "true or false";
const NUMBER: &str = "a whole number from 1 to 10000";
const SYSTEMS: &str = "systems such as x86_64-linux with commas between them and no blanks";

/// What a builder can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub systems: BTreeSet<System>,
    pub max_jobs: NonZeroU32,
    pub speed_factor: NonZeroU32,
    pub features: BTreeSet<Feature>,
    pub mandatory_features: BTreeSet<Feature>,
}

/// One job at a time for this machine's own system.
impl Default for Offer {
    fn default() -> Self {
        Self {
            systems: BTreeSet::from([System::current()]),
            max_jobs: NonZeroU32::MIN,
            speed_factor: NonZeroU32::MIN,
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        }
    }
}

impl Offer {
    /// What the builder itself says is added; as many jobs as `jobs` has, if that is set.
    pub(super) fn with(&self, said: &Announcement, jobs: Option<NonZeroU32>) -> Self {
        Self {
            systems: if said.systems.is_empty() { &self.systems } else { &said.systems }.clone(),
            max_jobs: jobs.or(said.max_jobs).unwrap_or(self.max_jobs),
            features: self.features.union(&said.features).cloned().collect(),
            ..self.clone()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {ANNOTATIONS}{key} is {value:?}: allowed is {allowed}")]
pub struct InvalidAnnotation {
    pub key: &'static str,
    /// The beginning of it.
    pub value: String,
    pub allowed: String,
}

impl Offer {
    /// `None`: the pod wants to be no builder.
    pub(super) fn read(
        annotations: &BTreeMap<String, String>,
        defaults: &Self,
    ) -> Result<Option<Self>, InvalidAnnotation> {
        let is_builder = |text: &str| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        let read = Reader(annotations);
        if read.value("builder", FLAG, is_builder)? == Some(false) {
            return Ok(None);
        }
        let features = |key| {
            let allowed =
                format!("features with commas between them and no blanks: {}", Feature::ALLOWED);
            read.value(key, &allowed, |text| list(text, Feature::parse))
        };
        let systems = |text: &str| list(text, System::parse).filter(|systems| !systems.is_empty());
        let Self { max_jobs, speed_factor, .. } = *defaults;
        let (own, mandatory) = (&defaults.features, &defaults.mandatory_features);
        Ok(Some(Self {
            systems: read
                .value("builder-systems", SYSTEMS, systems)?
                .unwrap_or_else(|| defaults.systems.clone()),
            max_jobs: read.value("builder-max-jobs", NUMBER, number)?.unwrap_or(max_jobs),
            speed_factor: read
                .value("builder-speed-factor", NUMBER, number)?
                .unwrap_or(speed_factor),
            features: features("builder-features")?.unwrap_or_else(|| own.clone()),
            mandatory_features: features("builder-mandatory-features")?
                .unwrap_or_else(|| mandatory.clone()),
        }))
    }
}

struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    /// `None`: the annotation is not there.
    fn value<T>(
        &self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, InvalidAnnotation> {
        let Some(text) = self.0.get(key) else {
            return Ok(None);
        };
        parse(text).map(Some).ok_or_else(|| InvalidAnnotation {
            key,
            value: text.chars().take(80).collect(),
            allowed: allowed.to_owned(),
        })
    }
}

/// Digits alone: `parse` by itself takes `+4`.
fn number(text: &str) -> Option<NonZeroU32> {
    let is_digits = text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|number: &NonZeroU32| is_digits && number.get() <= MAX_NUMBER)
}

/// An empty text is an empty list.
fn list<T: Ord>(text: &str, parse: fn(&str) -> Option<T>) -> Option<BTreeSet<T>> {
    if text.is_empty() {
        return Some(BTreeSet::new());
    }
    let items: Option<BTreeSet<_>> = text.split(',').map(parse).collect();
    items.filter(|items| items.len() <= MAX_ITEMS)
}

/// Lines `annotation=value`, and `said=…` for the greeting of its sshd.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_annotations(data: &[u8]) {
    let mut annotations: BTreeMap<_, _> = crate::fuzz::pairs(&crate::fuzz::text(data)).collect();
    let said = Announcement::parse(&annotations.remove("said").unwrap_or_default());
    let defaults = Offer::default().with(&said, None);
    let offer = match Offer::read(&annotations, &defaults) {
        Ok(Some(offer)) => offer,
        Ok(None) => return,
        Err(error) => return crate::fuzz::refusal(&error),
    };
    let Offer { systems, max_jobs, speed_factor, features, mandatory_features } = offer;
    assert!([&features, &mandatory_features].iter().all(|all| all.len() <= MAX_ITEMS));
    assert!((1..=MAX_ITEMS).contains(&systems.len()));
    assert!([max_jobs, speed_factor].iter().all(|number| number.get() <= MAX_NUMBER));
    crate::fuzz::one_machine(&crate::model::Machine {
        address: std::net::IpAddr::from([10, 0, 0, 1]).into(),
        systems,
        key: None,
        max_jobs,
        speed_factor,
        features,
        mandatory_features,
        host_key: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<Option<Offer>, InvalidAnnotation> {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Offer::read(&annotations.collect(), &Offer::default())
    }

    fn features(all: &[&str]) -> BTreeSet<Feature> {
        all.iter().map(|text| Feature::parse(text).unwrap()).collect()
    }

    #[test]
    fn what_is_not_said_is_as_the_settings_say() {
        assert_eq!(read(&[]), Ok(Some(Offer::default())));
        assert_eq!(read(&[("builder", "true"), ("other", "\n")]), Ok(Some(Offer::default())));
        let defaults = Offer { features: features(&["kvm"]), ..Offer::default() };
        assert_eq!(Offer::read(&BTreeMap::new(), &defaults), Ok(Some(defaults.clone())));
        let said = BTreeMap::from([("builder-features".to_owned(), String::new())]);
        assert_eq!(Offer::read(&said, &defaults), Ok(Some(Offer::default())), "none is a word too");
    }

    #[test]
    fn what_a_builder_says_is_less_than_what_is_set() {
        let said = Announcement::parse("SSH-2.0-x nix-csi jobs=8 systems=i686-linux features=kvm");
        let settings = Offer { features: features(&["big-parallel"]), ..Offer::default() };
        let with = |jobs| settings.with(&said, NonZeroU32::new(jobs));
        assert_eq!((with(0).max_jobs.get(), with(2).max_jobs.get()), (8, 2));
        assert_eq!(with(0).features, features(&["big-parallel", "kvm"]));
        assert_eq!(with(0).systems.len(), 1);
        assert_eq!(settings.with(&Announcement::default(), None), settings);
    }

    #[test]
    fn all_that_is_said_is_read() {
        let offer = read(&[
            ("builder-systems", "x86_64-linux,i686-linux,x86_64-linux"),
            ("builder-max-jobs", "16"),
            ("builder-speed-factor", "2"),
            ("builder-features", "kvm,big-parallel"),
            ("builder-mandatory-features", "gccarch-znver4"),
        ]);
        let systems = ["i686-linux", "x86_64-linux"].map(|s| System::parse(s).unwrap());
        let expected = Offer {
            systems: BTreeSet::from(systems),
            max_jobs: NonZeroU32::new(16).unwrap(),
            speed_factor: NonZeroU32::new(2).unwrap(),
            features: features(&["big-parallel", "kvm"]),
            mandatory_features: features(&["gccarch-znver4"]),
        };
        assert_eq!(offer, Ok(Some(expected)));
    }

    #[test]
    fn a_pod_may_keep_out_whatever_else_it_says() {
        assert_eq!(read(&[("builder", "false"), ("builder-max-jobs", "x")]), Ok(None));
    }

    #[test]
    fn what_would_break_out_of_a_field_is_refused() {
        let lists =
            ["a b", "a\nb", "a;b", "a#b", "@a", "a,", ",", "-", "a, b", "a\tb", "ä", "a\u{a0}"];
        for value in lists {
            for key in ["builder-features", "builder-mandatory-features", "builder-systems"] {
                let error = read(&[(key, value)]).unwrap_err();
                assert_eq!((error.key, &*error.value), (key, value));
            }
        }
        for value in ["", "0", "-1", "+1", "1.5", "10001", "99999999999", "4 ", "4\n", "x", "٤"] {
            for key in ["builder-max-jobs", "builder-speed-factor"] {
                assert_eq!(read(&[(key, value)]).unwrap_err().key, key, "{value:?}");
            }
        }
        for (key, value) in [("builder", ""), ("builder", "no"), ("builder-systems", "")] {
            assert_eq!(read(&[(key, value)]).unwrap_err().key, key, "{value:?}");
        }
        assert!(read(&[("builder-systems", "x86_64-linux,hurd")]).is_err());
        let many: Vec<_> = (0..=MAX_ITEMS).map(|n| format!("f{n}")).collect();
        assert!(read(&[("builder-features", &many.join(","))]).is_err());
    }

    #[test]
    fn the_error_says_what_is_allowed_and_stays_one_short_line() {
        let error = read(&[("builder-max-jobs", &"\n".repeat(1000))]).unwrap_err().to_string();
        assert!(error.starts_with("the annotation nix.csi.store/builder-max-jobs is "), "{error}");
        assert!(error.ends_with(NUMBER) && !error.contains('\n') && error.len() < 400, "{error}");
    }
}
