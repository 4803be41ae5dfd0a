//! Whose request it is, for shares of what the node has little of.

use std::fmt;
use std::sync::Arc;

use super::PodInfo;

/// A pod's namespace, or [`Tenant::local`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// No namespace has this name: theirs are DNS labels.
const LOCAL: &str = "(local)";

impl Tenant {
    pub fn namespace(name: &str) -> Self {
        if name.is_empty() { Self::local() } else { Self(name.into()) }
    }

    /// Of a request without a pod, such as a person's on the node.
    pub fn local() -> Self {
        Self(LOCAL.into())
    }

    /// `None`: of no pod.
    pub fn as_namespace(&self) -> Option<&str> {
        Some(&*self.0).filter(|name| *name != LOCAL)
    }

    /// As what the kubelet says, or doesn't say, about the pod.
    pub fn of(pod: Option<&PodInfo>) -> Self {
        pod.map_or_else(Self::local, |pod| Self::namespace(&pod.namespace))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_a_namespace_or_local() {
        let pod = PodInfo { namespace: "web".to_owned(), ..PodInfo::default() };
        assert_eq!(Tenant::of(Some(&pod)), Tenant::namespace("web"));
        assert_eq!(Tenant::of(Some(&pod)).as_namespace(), Some("web"));
        assert_eq!(Tenant::of(Some(&pod)).to_string(), "web");
        assert_eq!(Tenant::local().as_namespace(), None);
        for nobody in [Tenant::of(None), Tenant::of(Some(&PodInfo::default()))] {
            assert_eq!(nobody, Tenant::local());
            assert_ne!(nobody, Tenant::namespace("local"));
        }
    }
}
