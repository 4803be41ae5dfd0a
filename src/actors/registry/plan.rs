//! Which machines the file has, from what is known of the builders. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::bench::Bench;
use super::{AddressKind, InvalidAnnotation, Offer, RegistryConfig};
use crate::k8s::BuilderPod;
use crate::model::{Address, Announcement, Machine};

/// Whether a builder is in the file, or why not. In the order of [`BuilderState::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuilderState {
    Ready,
    /// Its pod is not ready, is being deleted, or has no address yet.
    NotReady,
    /// It does not answer, and is asked until it does.
    Benched,
    /// An annotation of its can't be read.
    Invalid,
    /// An annotation of its takes it out.
    Excluded,
}

impl BuilderState {
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::NotReady, Self::Benched, Self::Invalid, Self::Excluded];

    /// As metrics and people have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::Benched => "benched",
            Self::Invalid => "invalid",
            Self::Excluded => "excluded",
        }
    }
}

/// A builder as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderStatus {
    pub namespace: String,
    pub pod: String,
    pub node: Option<String>,
    pub state: BuilderState,
    pub address: Option<Address>,
    /// `None`: it keeps out, or what it says can't be read.
    pub offer: Option<Offer>,
    /// Why it is not in the file, where the state alone does not say it.
    pub reason: Option<String>,
}

/// A builder as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Builder {
    pub(super) namespace: String,
    pub(super) name: String,
    node: Option<String>,
    is_ready: bool,
    pub(super) address: Option<Address>,
    /// It has no name in the DNS, where one was wished.
    pub(super) lacks_name: bool,
    annotations: BTreeMap<String, String>,
    /// By its sshd, when it was asked last and answered.
    said: Announcement,
    was_asked: bool,
    pub(super) offer: Result<Option<Offer>, InvalidAnnotation>,
    pub(super) bench: Bench,
}

impl Builder {
    /// `before`: the same pod, as it was known.
    pub(super) fn of(pod: BuilderPod, config: &RegistryConfig, before: Option<&Self>) -> Self {
        let known = before.map(|b| (b.bench.clone(), b.said.clone(), b.was_asked));
        let (bench, said, was_asked) = known.unwrap_or_default();
        let name = match config.address {
            AddressKind::PodIp => None,
            AddressKind::Hostname => dns_name(&pod, &config.cluster_domain),
        };
        let lacks_name = name.is_none() && config.address == AddressKind::Hostname;
        Self {
            address: name.or_else(|| pod.ip.map(Address::from)),
            lacks_name,
            offer: Offer::read(&pod.annotations, &config.defaults.with(&said, config.jobs)),
            annotations: pod.annotations,
            said,
            was_asked,
            namespace: pod.namespace,
            name: pod.name,
            node: pod.node,
            is_ready: pod.is_ready,
            bench,
        }
    }

    /// Whether it would be in the file by guess.
    pub(super) fn is_unasked(&self) -> bool {
        !self.was_asked && self.state() == BuilderState::Ready
    }

    /// Whether its answer, or that there was none, makes anything of it another.
    pub(super) fn answered(
        &mut self,
        said: Option<&Announcement>,
        config: &RegistryConfig,
    ) -> bool {
        let was_asked = std::mem::replace(&mut self.was_asked, true);
        let Some(said) = said.filter(|said| self.said != **said) else {
            return !was_asked;
        };
        self.said = said.clone();
        let offer = Offer::read(&self.annotations, &config.defaults.with(said, config.jobs));
        std::mem::replace(&mut self.offer, offer) != self.offer || !was_asked
    }

    /// What is to be said of it, beside `before`: the same is said once.
    pub(super) fn complaint(&self, before: Option<&Self>) -> Option<&InvalidAnnotation> {
        let error = self.offer.as_ref().err()?;
        let said = before.and_then(|before| before.offer.as_ref().err());
        (said != Some(error)).then_some(error)
    }

    fn state(&self) -> BuilderState {
        match &self.offer {
            Err(_) => BuilderState::Invalid,
            Ok(None) => BuilderState::Excluded,
            Ok(Some(_)) if !self.is_ready || self.address.is_none() => BuilderState::NotReady,
            Ok(Some(_)) if self.bench.is_out() => BuilderState::Benched,
            Ok(Some(_)) => BuilderState::Ready,
        }
    }

    /// `None`: it is not to be in the file now.
    fn machine(&self, config: &RegistryConfig) -> Option<Machine> {
        let is_in = self.state() == BuilderState::Ready;
        let offer = self.offer.as_ref().ok()?.clone().filter(|_| is_in)?;
        let Offer { systems, max_jobs, speed_factor, features, mandatory_features } = offer;
        Some(Machine {
            address: self.address.clone()?,
            systems,
            key: config.key.clone(),
            max_jobs,
            speed_factor,
            features,
            mandatory_features,
            host_key: config.host_key.clone(),
        })
    }

    pub(super) fn status(&self) -> BuilderStatus {
        let state = self.state();
        let reason = match state {
            BuilderState::Invalid => self.offer.as_ref().err().map(ToString::to_string),
            BuilderState::Ready
            | BuilderState::NotReady
            | BuilderState::Benched
            | BuilderState::Excluded => None,
        };
        BuilderStatus {
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            node: self.node.clone(),
            state,
            address: self.address.clone(),
            offer: self.offer.clone().ok().flatten(),
            reason,
        }
    }
}

/// The name that the headless service `subdomain` gives the pod. It resolves where that service exists.
fn dns_name(pod: &BuilderPod, cluster_domain: &str) -> Option<Address> {
    let (hostname, subdomain) = (pod.hostname.as_ref()?, pod.subdomain.as_ref()?);
    let name = format!("{hostname}.{subdomain}.{}.svc.{cluster_domain}", pod.namespace);
    Address::parse(&name).ok()
}

/// What the file is to have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// By address; no address twice.
    pub(super) machines: Vec<Machine>,
    /// As [`BuilderState::ALL`].
    pub(super) counts: [i64; BuilderState::ALL.len()],
}

impl Plan {
    /// Builds at once on all machines together.
    pub(super) fn slots(&self) -> u32 {
        self.machines.iter().fold(0, |sum, machine| machine.max_jobs.get().saturating_add(sum))
    }

    pub(super) fn text(&self) -> String {
        self.machines.iter().fold(String::new(), |mut text, machine| {
            // Writing to a string never fails.
            let _ = writeln!(text, "{machine}");
            text
        })
    }
}

/// `builders` in any order; the outcome is the same.
pub(super) fn plan<'a>(
    builders: impl Iterator<Item = &'a Builder>,
    config: &RegistryConfig,
) -> Plan {
    let mut counts = [0; BuilderState::ALL.len()];
    let mut machines = Vec::new();
    for builder in builders {
        counts[builder.state() as usize] += 1;
        machines.extend(builder.machine(config).map(|machine| (machine, &builder.name)));
    }
    machines.sort_by(|(a, pod_a), (b, pod_b)| (&a.address, pod_a).cmp(&(&b.address, pod_b)));
    // Two pods in the network of one host share its address: whichever answers there, Nix must not
    // count its jobs twice.
    machines.dedup_by(|(a, _), (b, _)| a.address == b.address);
    Plan { machines: machines.into_iter().map(|(machine, _)| machine).collect(), counts }
}

#[cfg(test)]
mod tests;
