//! What a builder says of itself in its sshd's greeting: `nix-csi jobs=8 systems=… features=…`, after the
//! software's version (RFC 4253, 4.2). Anybody may say it, so it is read like any input, and what it says is
//! only where builds are tried.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use super::{Feature, System};

const NAME: &str = "nix-csi";
/// Bytes. A greeting has 255 at most, with the software's version and the distribution's.
const MAX: usize = 180;
/// Bytes of a greeting (RFC 4253, 4.2). What is longer says nothing.
const MAX_GREETING: usize = 255;

/// What is not said is for others to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    pub max_jobs: Option<NonZeroU32>,
    pub systems: BTreeSet<System>,
    pub features: BTreeSet<Feature>,
}

impl Announcement {
    /// Who says more is not believed.
    pub const MAX_JOBS: u32 = 10_000;

    /// From a greeting's line; a word that can't be read says nothing.
    pub fn parse(greeting: &str) -> Self {
        let mut said = Self::default();
        if greeting.len() > MAX_GREETING {
            return said;
        }
        let words = greeting.split_whitespace().skip_while(|word| *word != NAME).skip(1);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "jobs" => {
                    let number = value.parse().ok();
                    said.max_jobs = number.filter(|jobs: &NonZeroU32| jobs.get() <= Self::MAX_JOBS);
                }
                "systems" => said.systems = value.split(',').filter_map(System::parse).collect(),
                "features" => said.features = value.split(',').filter_map(Feature::parse).collect(),
                _ => {}
            }
        }
        said
    }
}

/// As far as there is room: what does not fit is left out.
impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = NAME.to_owned();
        push(&mut text, " jobs=", &self.max_jobs);
        push(&mut text, " systems=", &self.systems);
        push(&mut text, " features=", &self.features);
        f.write_str(&text)
    }
}

fn push<'a, T: fmt::Display + 'a>(
    text: &mut String,
    name: &str,
    items: impl IntoIterator<Item = &'a T>,
) {
    let mut before = name;
    for item in items.into_iter().map(T::to_string) {
        if text.len() + before.len() + item.len() <= MAX {
            *text += before;
            *text += &item;
            before = ",";
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(jobs: u32, systems: &[&str], features: &[&str]) -> Announcement {
        Announcement {
            max_jobs: NonZeroU32::new(jobs),
            systems: systems.iter().map(|text| System::parse(text).unwrap()).collect(),
            features: features.iter().map(|text| Feature::parse(text).unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_said_is_heard_behind_whatever_sshd_says() {
        let own = said(8, &["x86_64-linux", "i686-linux"], &["kvm", "big-parallel"]);
        let text = own.to_string();
        assert_eq!(
            text,
            "nix-csi jobs=8 systems=i686-linux,x86_64-linux features=big-parallel,kvm"
        );
        let greeting = format!("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 {text}\r");
        assert_eq!(Announcement::parse(&greeting), own);
        for nothing in ["SSH-2.0-OpenSSH_9.2p1", "", "SSH-2.0-x jobs=8 features=kvm", "nix-csi"] {
            assert_eq!(Announcement::parse(nothing), Announcement::default(), "{nothing}");
        }
        let odd =
            "nix-csi jobs=0 jobs=99999 systems=hurd,x86_64-linux features=a;b,kvm,@x more=1 x";
        assert_eq!(Announcement::parse(odd), said(0, &["x86_64-linux"], &["kvm"]));
    }

    #[test]
    fn a_greeting_that_is_too_long_says_nothing() {
        let greeting = |len: usize| format!("{:x<1$} nix-csi jobs=8", "SSH-2.0-", len - 15);
        assert_eq!(Announcement::parse(&greeting(255)), said(8, &[], &[]));
        assert_eq!(Announcement::parse(&greeting(256)), Announcement::default());
    }

    #[test]
    fn it_fits_into_a_greeting() {
        let features: Vec<_> = (0..50).map(|n| format!("feature-{n}")).collect();
        let features: Vec<_> = features.iter().map(String::as_str).collect();
        let text = said(2, &["x86_64-linux"], &features).to_string();
        assert!(text.len() <= MAX && Announcement::parse(&text).features.len() > 5, "{text}");
    }

    proptest! {
        #[test]
        fn no_greeting_is_too_odd(text in ".{0,300}") {
            let heard = Announcement::parse(&format!("nix-csi {text}"));
            prop_assert!(heard.max_jobs.is_none_or(|jobs| jobs.get() <= Announcement::MAX_JOBS));
            prop_assert!(heard.to_string().bytes().all(|c| c.is_ascii_graphic() || c == b' '));
        }
    }
}
