//! Whom one command asks.

use std::fmt;
use std::time::Duration;

use super::named::is_same;
use crate::model::FetchFrom;
use crate::nix::redact::Redactor;

/// What to ask, in the configured order, and what to leave out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// As configured, with parameters and credentials.
    pub up: Vec<String>,
    pub down: Vec<Down>,
    /// The policy that leaves out others.
    pub limited: Option<FetchFrom>,
}

impl Choice {
    /// What is to be asked instead of all that Nix knows, if that is less.
    pub fn only(&self) -> Option<String> {
        let is_less = self.limited.is_some() || !self.down.is_empty();
        is_less.then(|| self.up.join(" "))
    }

    /// Whether one of those that are asked is reached over ssh.
    pub fn has_ssh(&self) -> bool {
        self.up.iter().any(|url| url.starts_with("ssh"))
    }

    /// Why the store at `url` is not worth asking, if it is one that is down.
    pub fn down_as(&self, url: &str) -> Option<String> {
        let down = self.down.iter().find(|down| is_same(url, &down.url))?;
        Some(format!("{} does not answer: {}", down.url, down.reason))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Without credentials.
    pub url: String,
    pub reason: String,
    /// When it is asked again.
    pub again_in: Duration,
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redactor = Redactor::default();
        let up: Vec<_> = self.up.iter().map(|url| redactor.clean(url)).collect();
        let Self { down, limited, .. } = self;
        let mut shown = f.debug_struct("Choice");
        shown.field("up", &up).field("down", down).field("limited", limited).finish()
    }
}
