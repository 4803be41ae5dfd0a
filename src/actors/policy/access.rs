//! Whether a namespace may see what its volume has come to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::grants::Grants;
use super::handle::{Known, refused};
use super::{PolicyError, PolicyHandle};
use crate::actors::core::blocking;
use crate::lock::lock;
use crate::model::{PodInfo, Rules, Sight, SigningKey, Source, StorePath, Tenant, VolumeSpec};
use crate::mount::{View, ViewId};
use crate::nix::{Nix, NixError};

/// Views whose signatures are known to be good.
const MOST: usize = 4096;

/// Cheap to clone.
#[derive(Clone)]
pub struct Access {
    pub policy: PolicyHandle,
    inner: Arc<Inner>,
}

struct Inner {
    grants: Grants,
    nix: Arc<dyn Nix>,
    /// All of a view is signed with one of the keys.
    signed: Mutex<HashMap<ViewId, Arc<[SigningKey]>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Store(#[from] NixError),
}

impl Access {
    /// `grants`: where what namespaces have built is noted.
    pub fn new(policy: PolicyHandle, nix: Arc<dyn Nix>, grants: PathBuf) -> Self {
        let inner = Inner { grants: Grants::new(grants), nix, signed: Mutex::default() };
        Self { policy, inner: Arc::new(inner) }
    }

    /// What an evaluation for the volume may read.
    pub fn sight(&self, spec: &VolumeSpec) -> Sight {
        // What a secret opens is not for the node's store before it is an input of something.
        if spec.secret.is_some() || spec.tokens.is_some() {
            return Sight::Own;
        }
        self.of(spec, |_, rules| rules.sight()).unwrap_or_default()
    }

    /// After the volume was resolved, with so much in sight: looks at its closure only where a rule is about that.
    /// What a source came to by itself is the namespace's from now on.
    pub async fn check(
        &self,
        spec: &VolumeSpec,
        sight: Sight,
        view: &View,
    ) -> Result<(), AccessError> {
        let is_about_it = |_: &PodInfo, rules: &Rules| {
            rules.keeps_private(&spec.source) || rules.signers().is_some()
        };
        // With all paths in sight it may be anybody's.
        let is_its_own = sight == Sight::Own && !matches!(spec.source, Source::StorePath(_));
        if !is_its_own && self.of(spec, is_about_it) != Some(true) {
            return Ok(());
        }
        let (this, spec, view) = (self.clone(), spec.clone(), view.clone());
        let checked = blocking(move || {
            let check =
                |pod: &PodInfo, rules: &Rules| this.inner.check(&spec.source, &view, pod, rules);
            this.of(&spec, check).unwrap_or(Ok(()))?;
            if is_its_own {
                this.inner.grants.note(&Tenant::of(spec.pod.as_ref()), &view.root);
            }
            Ok(())
        });
        checked.await.unwrap_or_else(|panic| {
            Err(NixError::panicked("looking whose a closure is", &panic).into())
        })
    }

    /// For a volume that was resolved, with so much in sight, under a policy of a while ago.
    pub async fn check_again(
        &self,
        spec: &VolumeSpec,
        sight: Sight,
        view: &View,
    ) -> Result<(), AccessError> {
        self.policy.check(spec)?;
        if sight == Sight::Store && self.sight(spec) == Sight::Own {
            return Err(PolicyError::Narrowed.into());
        }
        self.check(spec, sight, view).await
    }

    /// `None`: nothing is refused to it.
    fn of<T>(&self, spec: &VolumeSpec, ask: impl FnOnce(&PodInfo, &Rules) -> T) -> Option<T> {
        let pod = spec.pod.as_ref()?;
        match self.policy.known() {
            Known::Policy(policy) => Some(ask(pod, policy.rules(&pod.namespace))),
            // Who is let in is asked elsewhere.
            Known::None | Known::Awaited { .. } => None,
        }
    }
}

impl Inner {
    fn check(
        &self,
        source: &Source,
        view: &View,
        pod: &PodInfo,
        rules: &Rules,
    ) -> Result<(), AccessError> {
        let refused = |refusal| AccessError::from(refused(&pod.namespace, refusal));
        if rules.keeps_private(source) && !self.grants.renew(&Tenant::of(Some(pod)), &view.root) {
            let root = self.nix.vouched(std::slice::from_ref(&view.root))?;
            root.iter().try_for_each(|root| rules.check_public(root)).map_err(refused)?;
        }
        if let Some(keys) = rules.signers()
            && let Some(path) = self.unsigned(view, &keys)?
        {
            return Err(refused(rules.unsigned(path)));
        }
        Ok(())
    }

    /// A path of the view that none of the keys has signed.
    fn unsigned(
        &self,
        view: &View,
        keys: &Arc<[SigningKey]>,
    ) -> Result<Option<StorePath>, NixError> {
        let known = || lock(&self.signed);
        if known().get(&view.id) == Some(keys) {
            return Ok(None);
        }
        let closure = self.nix.closure(&view.root)?;
        let paths: Vec<_> = closure.paths.into_iter().map(|info| info.path).collect();
        let all = self.nix.vouched(&paths)?;
        if let Some(unsigned) = all.into_iter().find(|one| !one.is_signed_by(keys)) {
            return Ok(Some(unsigned.path));
        }
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(view.id.clone(), keys.clone());
        Ok(None)
    }
}
