//! Whether files of secrets are what they are said to be. Nothing of a secret gets into a message. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::evaluator::MAX_TOKENS;
use super::redact::access_tokens;

/// `name:` and the base64 of an ed25519 secret key, as `nix key generate-secret` prints it.
pub fn check_signing_key(text: &str) -> Result<(), &'static str> {
    const BYTES: usize = 64;
    let key = text.trim().split_once(':').and_then(|(_, key)| STANDARD.decode(key).ok());
    match key {
        Some(key) if key.len() == BYTES => Ok(()),
        _ => Err("it is no key as `nix key generate-secret` prints it"),
    }
}

/// `HOST=TOKEN …`, bare or as a setting.
pub fn check_access_tokens(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_TOKENS {
        return Err("it has more than 32768 bytes");
    }
    let is_token = |pair: &str| matches!(pair.split_once('='), Some((host, token)) if !host.is_empty() && !token.is_empty());
    if access_tokens(text).into_iter().all(is_token) {
        Ok(())
    } else {
        Err("write HOST=TOKEN, such as github.com=ghp_…, one or several")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_told_from_other_things() {
        let key = format!("nodes-1:{}{}", "A".repeat(86), "==");
        assert_eq!(check_signing_key(&format!("{key}\n")), Ok(()));
        // A public key is half as long.
        for bad in [
            "",
            "nodes-1:",
            &key["nodes-1:".len()..],
            "nodes-1:YHcpOLHUhaBLqc+IDGAIFUBFZwbNWXpvBnuZcFkKTTo=",
        ] {
            check_signing_key(bad).unwrap_err();
        }
        for good in ["", "# none\n", "a.b=c", "access-tokens = a.b=PAT:c d.e=f"] {
            assert_eq!(check_access_tokens(good), Ok(()), "{good}");
        }
        for bad in ["ghp_x", "access-tokens = ghp_x", "a.b=", "=c", "<html>not found</html>"] {
            check_access_tokens(bad).unwrap_err();
        }
        check_access_tokens(&"#".repeat(40_000)).unwrap_err();
    }
}
