//! A volume as it was asked for.

use serde::{Deserialize, Serialize};

use super::{Attributes, PodTokens, Secret, Source, VolumeSize};

/// How the pod may use the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// A bind of the shared view; no write is possible.
    ReadOnly,
    /// An overlay of the volume's own over the view; writes stay in the volume.
    Writable,
}

/// How the volume's mounts are laid out at its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One mount shows everything.
    #[default]
    Plain,
    /// The top is a mount that a container runtime can idmap, for pods with a user namespace.
    Idmapped,
}

impl Layout {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Idmapped => "idmapped",
        }
    }
}

/// What is to be mounted at a volume's target: access and layout in the combinations that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A bind of the shared view.
    ReadOnly,
    /// A small read-only tmpfs with binds of the view's parts below it.
    Idmapped,
    /// An overlay of the volume's own over the view. The runtime can't idmap it.
    Writable,
    /// The same, with a file system of the volume's own of this size for what is written.
    Bounded(VolumeSize),
}

impl Shape {
    /// A writable volume has one layout only; the edge refuses to promise it another, and a read-only
    /// one a size.
    pub fn of(access: Access, layout: Layout, size: Option<VolumeSize>) -> Self {
        match (access, layout, size) {
            (Access::ReadOnly, Layout::Plain, _) => Self::ReadOnly,
            (Access::ReadOnly, Layout::Idmapped, _) => Self::Idmapped,
            (Access::Writable, _, None) => Self::Writable,
            (Access::Writable, _, Some(size)) => Self::Bounded(size),
        }
    }

    /// Of a writable one, from what it was made with.
    pub fn writable(size: Option<VolumeSize>) -> Self {
        size.map_or(Self::Writable, Self::Bounded)
    }

    pub fn is_writable(self) -> bool {
        matches!(self, Self::Writable | Self::Bounded(_))
    }

    /// How much may be written.
    pub fn size(self) -> Option<VolumeSize> {
        match self {
            Self::Bounded(size) => Some(size),
            Self::ReadOnly | Self::Idmapped | Self::Writable => None,
        }
    }
}

/// What the kubelet says about the pod with `podInfoOnMount` (`csi.storage.k8s.io/…`).
/// Unauthenticated text unless the caller is a kubelet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodInfo {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub service_account: String,
    /// `ephemeral`: the volume is an inline one of the pod.
    #[serde(default)]
    pub is_ephemeral: bool,
}

/// Everything that decides whether two publishes of one id are the same request
/// (CSI 1.12, NodePublishVolume: "compatible"), and what they resolve to.
#[derive(Debug, Clone)]
pub struct VolumeSpec {
    pub access: Access,
    /// The CSI access mode's number, kept for the comparison.
    pub access_mode: i32,
    /// The user's attributes literally, without the kubelet's `csi.storage.k8s.io/…`.
    pub attributes: Attributes,
    pub source: Source,
    pub pod: Option<PodInfo>,
    /// Follows from the pod, so it is not part of the comparison: what the driver can learn of a pod
    /// may change while its volume stays as it was made.
    pub layout: Layout,
    /// Of a writable volume; parsed from the attributes.
    pub size: Option<VolumeSize>,
    /// Of this call. Not part of the comparison, and of no record.
    pub secret: Option<Secret>,
    /// The same; where the operator has a program that exchanges them.
    pub tokens: Option<PodTokens>,
}

/// What one call gives to fetch with.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    secret: Option<Secret>,
    tokens: Option<PodTokens>,
}

impl VolumeSpec {
    pub fn shape(&self) -> Shape {
        Shape::of(self.access, self.layout, self.size)
    }

    /// What it was given to fetch with, which is of no use afterwards.
    pub fn take_secrets(&mut self) -> Secrets {
        Secrets { secret: self.secret.take(), tokens: self.tokens.take() }
    }

    #[must_use]
    pub fn with_secrets(self, Secrets { secret, tokens }: Secrets) -> Self {
        Self { secret, tokens, ..self }
    }

    /// The kubelet's own keys are not part of the comparison: a restarted kubelet may add some.
    pub fn is_same_request(&self, other: &Self) -> bool {
        self.access == other.access
            && self.access_mode == other.access_mode
            && self.attributes == other.attributes
    }
}
