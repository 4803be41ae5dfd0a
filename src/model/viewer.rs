//! For whom a source is found out, and with what.

use sha2::{Digest, Sha256};

use super::{PodTokens, Secret, Sight, Tenant};

#[derive(Debug, Clone)]
pub struct Viewer {
    pub tenant: Tenant,
    pub sight: Sight,
    /// What its request was given to fetch with.
    pub secret: Option<Secret>,
    /// To be exchanged for one, if there is none.
    pub tokens: Option<PodTokens>,
}

impl Viewer {
    /// A person on the node, or the operator.
    pub fn local() -> Self {
        Self { tenant: Tenant::local(), sight: Sight::Store, secret: None, tokens: None }
    }

    /// The same for those for whom the same source comes to the same, and who may know that: what a secret
    /// has opened is the tenant's own.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update([u8::from(self.sight == Sight::Own)]);
        if let Some(secret) = &self.secret {
            digest.update(secret.digest());
            digest.update(self.tenant.to_string());
        } else if let Some(tokens) = &self.tokens {
            // They are others each time; the account is the same.
            digest.update(tokens.account());
            digest.update([0]);
            digest.update(self.tenant.to_string());
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
            Viewer { tenant: Tenant::namespace(name), sight, secret, tokens: None }.digest()
        };
        assert_eq!(viewer("a", Sight::Store, None), viewer("b", Sight::Store, None));
        let account = |name: &str, account: &str, token: &str| {
            let text = format!(r#"{{"a":{{"token":"{token}"}}}}"#);
            let pod = PodInfo { service_account: account.to_owned(), ..PodInfo::default() };
            let tokens = PodTokens::parse(&text, &pod).unwrap();
            let tenant = Tenant::namespace(name);
            Viewer { tenant, sight: Sight::Own, secret: None, tokens }.digest()
        };
        assert_eq!(account("a", "x", "1"), account("a", "x", "2"));
        let all = [
            viewer("a", Sight::Store, None),
            viewer("a", Sight::Own, None),
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
