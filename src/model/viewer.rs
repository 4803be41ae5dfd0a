//! For whom a source is found out, and with what.

use sha2::{Digest, Sha256};

use super::{FetchFrom, Limits, PodTokens, Secret, Sight, Tenant};

#[derive(Debug, Clone)]
pub struct Viewer {
    pub tenant: Tenant,
    pub sight: Sight,
    /// What its request was given to fetch with. Who has one sees its own store alone.
    pub secret: Option<Secret>,
    /// To be exchanged for one, if there is none.
    pub tokens: Option<PodTokens>,
    /// Of its tenant's own, beside the node's.
    pub limits: Option<Limits>,
    /// Whom the node asks for it; `None`: all that it has.
    pub fetch_from: Option<FetchFrom>,
}

impl Viewer {
    /// A person on the node, or the operator.
    pub fn local() -> Self {
        Self {
            tenant: Tenant::local(),
            sight: Sight::Store,
            secret: None,
            tokens: None,
            limits: None,
            fetch_from: None,
        }
    }

    /// The same for those for whom the same source comes to the same, and who may know that. What a tenant's
    /// own store and caches have is nobody else's, and what a secret has opened not even the tenant's without it.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        if self.sight == Sight::Store {
            return digest.finalize().into();
        }
        digest.update(self.tenant.to_string());
        match (&self.tokens, &self.secret) {
            // They are others each time, and so is what they are exchanged for; the account is the same.
            (Some(tokens), _) => {
                digest.update([0, 1]);
                digest.update(tokens.account());
            }
            (None, Some(secret)) => {
                digest.update([0, 2]);
                digest.update(secret.digest());
            }
            (None, None) => digest.update([0, 3]),
        }
        digest.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodInfo;

    #[test]
    fn what_a_secret_has_opened_is_shared_with_nobody() {
        let secret =
            |netrc: &str| Secret::parse([("netrc".to_owned(), netrc.to_owned())].into()).unwrap();
        let viewer = |name: &str, sight, secret| {
            let tenant = Tenant::namespace(name);
            Viewer { tenant, sight, secret, ..Viewer::local() }.digest()
        };
        assert_eq!(viewer("a", Sight::Store, None), viewer("b", Sight::Store, None));
        let account = |name: &str, account: &str, token: &str| {
            let text = format!(r#"{{"a":{{"token":"{token}"}}}}"#);
            let pod = PodInfo { service_account: account.to_owned(), ..PodInfo::default() };
            let tokens = PodTokens::parse(&text, &pod).unwrap();
            let tenant = Tenant::namespace(name);
            Viewer { tenant, sight: Sight::Own, tokens, ..Viewer::local() }.digest()
        };
        assert_eq!(account("a", "x", "1"), account("a", "x", "2"));
        let all = [
            viewer("a", Sight::Store, None),
            viewer("a", Sight::Own, None),
            viewer("b", Sight::Own, None),
            viewer("a", Sight::Own, secret("x")),
            viewer("b", Sight::Own, secret("x")),
            viewer("a", Sight::Own, secret("y")),
            account("a", "x", "1"),
            account("b", "x", "1"),
            account("a", "y", "1"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
