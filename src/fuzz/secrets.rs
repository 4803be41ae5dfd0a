//! What a request brings with it that nobody else may see, and who vouches for what comes of it.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest, Sha256};

use super::{pairs, refusal, text};
use crate::jail::MAX_SETTINGS;
use crate::model::{
    ACCESS_TOKENS, NETRC, PodInfo, PodTokens, SERVICE_ACCOUNT_TOKENS, Secret, SigningKey,
    StorePath, Vouched,
};

/// Lines `key=value`; with `@times`, each value that often.
pub(crate) fn secret(data: &[u8]) {
    const MAX: usize = 32 << 10;
    let mut given: HashMap<String, String> = pairs(&text(data)).collect();
    let times = given.remove("@times").and_then(|times| times.parse().ok());
    if let Some(times) = times {
        for value in given.values_mut() {
            *value = value.repeat(Ord::min(times, 64));
        }
    }
    match Secret::parse(given.clone()) {
        Ok(Some(secret)) => {
            let of = |key| given.get(key).map_or("", String::as_str);
            let (tokens, netrc) = (secret.access_tokens(), secret.netrc());
            assert_eq!((tokens, netrc), (of(ACCESS_TOKENS), of(NETRC)));
            assert!(given.keys().all(|key| [ACCESS_TOKENS, NETRC].contains(&&**key)));
            assert!(tokens.len() <= MAX && netrc.len() <= MAX);
            assert_eq!(format!("{secret:?}"), "Secret(***)");
            let same = Secret::parse(given.clone()).expect("the same").expect("the same");
            assert_eq!(secret.digest(), same.digest());
            // Nothing of one passes for the other's.
            let moved = format!("{tokens}{netrc}");
            let other = Secret::parse([(NETRC.to_owned(), moved)].into());
            if let Ok(Some(other)) = other {
                assert!(other == secret || other.digest() != secret.digest());
            }
        }
        Ok(None) => assert!(given.values().all(|value| value.trim().is_empty())),
        Err(error) => {
            refusal(&error);
            assert!(error.to_string().contains("secrets (nodePublishSecretRef)"), "{error}");
            // The keys and lengths say all of it.
            let blank = given.iter().map(|(key, value)| (key.clone(), "x".repeat(value.len())));
            assert_eq!(Secret::parse(blank.collect()), Err(error));
        }
    }
}

/// The service account, and from the second line on what the kubelet gives.
pub(crate) fn pod_tokens(data: &[u8]) {
    let text = text(data);
    let (account, tokens) = text.split_once('\n').unwrap_or(("", &text));
    let pod = PodInfo {
        namespace: "team".to_owned(),
        service_account: account.to_owned(),
        ..PodInfo::default()
    };
    let found = match PodTokens::parse(tokens, &pod) {
        Ok(None) => return,
        Ok(Some(found)) => found,
        Err(error) => {
            refusal(&error);
            assert!(error.to_string().starts_with(SERVICE_ACCOUNT_TOKENS), "{error}");
            assert_eq!(PodTokens::parse("", &pod).expect_err("no JSON"), error);
            return;
        }
    };
    assert_eq!(format!("{found:?}"), format!("PodTokens({account} ***)"));
    let request = found.request();
    assert!(request.len() <= MAX_SETTINGS && !request.contains(['\n', '\0']), "{request:?}");
    let said: serde_json::Value = serde_json::from_str(request).expect("JSON");
    assert_eq!((&said["namespace"], &said["serviceAccount"]), (&"team".into(), &account.into()));
    // Whatever the program is told of is known to be secret.
    let told = said["tokens"].as_object().expect("by audience").values();
    let told: Vec<_> = told.map(|token| token["token"].as_str().expect("a text")).collect();
    assert_eq!(told, found.tokens());
    let again = PodTokens::parse(&said["tokens"].to_string(), &pod);
    let again = again.expect("what it wrote").expect("what it wrote");
    assert_eq!((again.request(), again.tokens()), (request, found.tokens()));
}

/// Lines `key=…`, `path=…`, `size=…`, `ref=…`, `sig=…`.
pub(crate) fn signature(data: &[u8]) {
    let text = text(data);
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    pairs(&text).for_each(|(key, value)| fields.entry(key).or_default().push(value));
    let all = |key: &str| fields.get(key).into_iter().flatten();
    let mut keys: Vec<_> = all("key").filter_map(|text| key(text)).collect();
    let Some(path) = all("path").find_map(|text| StorePath::parse(text).ok()) else { return };
    let mut vouched = Vouched {
        path,
        sha256: Sha256::digest(data).into(),
        nar_size: all("size").find_map(|text| text.parse().ok()).unwrap_or(0),
        references: all("ref").filter_map(|text| StorePath::parse(text).ok()).collect(),
        signatures: all("sig").cloned().collect(),
    };
    let signed = vouched.fingerprint();
    whole(&vouched, &signed);
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let public = STANDARD.encode(pair.public_key());
    let ours = SigningKey::parse(&format!("ours-1:{public}")).expect("a key");
    let theirs = SigningKey::parse(&format!("ours-2:{public}")).expect("a key");
    keys.retain(|key| *key != ours && *key != theirs);
    let before = vouched.is_signed_by(&keys);
    assert!(!vouched.is_signed_by(std::slice::from_ref(&ours)), "nobody has signed it");
    let signature = STANDARD.encode(pair.sign(signed.as_bytes()));
    vouched.signatures.push(format!("ours-1:{signature}"));
    assert!(vouched.is_signed_by(&[theirs.clone(), ours.clone()]));
    assert!(!vouched.is_signed_by(&[theirs]));
    assert_eq!(vouched.is_signed_by(&keys), before);
    let mut others = [vouched.clone(), vouched.clone(), vouched.clone(), vouched];
    others[0].sha256[0] ^= 1;
    others[1].nar_size ^= 1;
    let itself = others[2].path.clone();
    others[2].references.push(itself);
    let name = format!("{}-{}x", others[3].path.hash(), others[3].path.name());
    others[3].path = StorePath::from_base_name(&name).unwrap_or_else(|_| {
        StorePath::from_base_name(&format!("{}-x", others[3].path.hash())).expect("a name")
    });
    assert!(others.iter().all(|other| !other.is_signed_by(std::slice::from_ref(&ours))));
}

fn key(text: &str) -> Option<SigningKey> {
    match SigningKey::parse(text) {
        Ok(key) => {
            let shown = key.to_string();
            assert_eq!(SigningKey::parse(&shown).as_ref(), Ok(&key));
            assert!(shown.starts_with(&format!("{}:", key.name())));
            assert!(!shown.contains(char::is_whitespace) && !shown.contains(char::is_control));
            Some(key)
        }
        Err(why) => {
            refusal(&why);
            None
        }
    }
}

/// Another path, size or list of references has another text.
fn whole(vouched: &Vouched, signed: &str) {
    let fields: Vec<_> = signed.split(';').collect();
    let [version, path, hash, size, references] = fields[..] else { panic!("{signed:?}") };
    assert_eq!((version, path), ("1", &*vouched.path.to_string()));
    assert_eq!(size, vouched.nar_size.to_string());
    let hash = hash.strip_prefix("sha256:").expect("its kind");
    assert!(hash.len() == 52 && hash.bytes().all(|c| c.is_ascii_alphanumeric()), "{hash}");
    let listed = references.split(',').filter(|path| !path.is_empty()).map(StorePath::parse);
    let mut listed = listed.collect::<Result<Vec<_>, _>>().expect("paths");
    let mut references = vouched.references.clone();
    listed.sort_unstable();
    references.sort_unstable();
    assert_eq!(listed, references);
}
