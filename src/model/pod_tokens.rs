//! Service-account tokens that the kubelet gives for a volume's pod: those that `tokenRequests` of the
//! CSIDriver object asks for (Kubernetes, "CSIDriver spec: token requests").

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{InvalidSecret, PodInfo};

/// Where the kubelet puts them: newer ones, if they are told to, among the secrets.
pub const SERVICE_ACCOUNT_TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// Bytes of all of them, and of what the program is told: a pipe holds no more (`jail::MAX_SETTINGS`).
const MAX: usize = 64 << 10;

/// Cheap to clone. Says nothing of itself.
#[derive(Clone)]
pub struct PodTokens(Arc<Inner>);

struct Inner {
    account: String,
    request: String,
    tokens: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    token: String,
    #[serde(default)]
    expiration_timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    namespace: &'a str,
    service_account: &'a str,
    pod: &'a str,
    /// By audience.
    tokens: &'a BTreeMap<String, Token>,
}

impl PodTokens {
    /// `Ok(None)`: there are none.
    pub fn parse(text: &str, pod: &PodInfo) -> Result<Option<Self>, InvalidSecret> {
        let too_long = InvalidSecret::Tokens { reason: "they have more than 65536 bytes" };
        if text.len() > MAX {
            return Err(too_long);
        }
        let tokens: BTreeMap<String, Token> = serde_json::from_str(text)
            .map_err(|_| InvalidSecret::Tokens { reason: "they are not what a kubelet writes" })?;
        if tokens.is_empty() {
            return Ok(None);
        }
        let PodInfo { namespace, service_account, name, .. } = pod;
        let request = Request { namespace, service_account, pod: name, tokens: &tokens };
        let request = serde_json::to_string(&request)
            .map_err(|_| InvalidSecret::Tokens { reason: "they can't be written as JSON" })?;
        if request.len() > MAX {
            return Err(too_long);
        }
        let account = service_account.clone();
        let tokens = tokens.into_values().map(|token| token.token).collect();
        Ok(Some(Self(Arc::new(Inner { account, request, tokens }))))
    }

    /// Of the pod's namespace: for whom what they open is the same.
    pub fn account(&self) -> &str {
        &self.0.account
    }

    /// For the program that exchanges them.
    pub fn request(&self) -> &str {
        &self.0.request
    }

    /// Never to be shown.
    pub fn tokens(&self) -> &[String] {
        &self.0.tokens
    }
}

impl fmt::Debug for PodTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodTokens({} ***)", self.account())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_a_kubelet_writes() {
        let pod = PodInfo {
            name: "p".into(),
            namespace: "ns".into(),
            service_account: "sa".into(),
            ..PodInfo::default()
        };
        let parse = |text: &str| PodTokens::parse(text, &pod);
        let text = r#"{"cache":{"token":"hunter2","expirationTimestamp":"2026-01-01T00:00:00Z"}}"#;
        let tokens = parse(text).unwrap().unwrap();
        assert_eq!((tokens.account(), tokens.tokens()), ("sa", &["hunter2".to_owned()][..]));
        assert_eq!(format!("{tokens:?}"), "PodTokens(sa ***)");
        let expected = r#"{"namespace":"ns","serviceAccount":"sa","pod":"p","tokens":{"cache":{"token":"hunter2","expirationTimestamp":"2026-01-01T00:00:00Z"}}}"#;
        assert_eq!(tokens.request(), expected);
        assert!(parse("{}").unwrap().is_none());
        for bad in ["", "hunter2", "[]", r#"{"a":"hunter2"}"#] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(
                error.contains(SERVICE_ACCOUNT_TOKENS) && !error.contains("hunter2"),
                "{error}"
            );
        }
        parse(&" ".repeat(MAX + 1)).unwrap_err();
        // The pod's names come on top.
        let nearly = text.replace("hunter2", &"x".repeat(MAX - text.len()));
        assert!(nearly.len() < MAX && parse(&nearly).is_err());
    }
}
