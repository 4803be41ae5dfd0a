//! Which store a URL names, and a message. Pure.

/// Words of messages about a store that could not be reached.
const LOST: [&str; 4] = [
    "unable to download '",
    "cannot connect to '",
    "failed to start SSH",
    "cannot open connection to remote store '",
];

/// What newer versions say of any store over ssh.
const NAMELESS: &str = "cannot open connection to remote store 'ssh-ng://'";

/// Whether the message says of a store over ssh that it could not be reached, and does not say of which.
pub(super) fn is_nameless(message: &str) -> bool {
    message.contains(NAMELESS)
}

/// Whether the message says that this store could not be reached.
pub(super) fn is_lost(message: &str, url: &str) -> bool {
    let store = url.split('?').next().unwrap_or_default().trim_end_matches('/');
    // A server that answers, with whatever status, is up.
    if store.is_empty() || message.contains("HTTP error") {
        return false;
    }
    let is_named = message
        .match_indices(store)
        .any(|(at, _)| message[at + store.len()..].starts_with(['/', '\'', '?']));
    is_named && LOST.iter().any(|words| message.contains(words))
}

/// Whether it names a store over ssh, as Nix 2.26 does where it says from where a path came, and not which.
pub(super) fn has_no_host(url: &str) -> bool {
    url == "ssh-ng://"
}

/// Whether two URLs name one store, whatever the parameters and the user.
pub(super) fn is_same(url: &str, other: &str) -> bool {
    let store = |url: &str| {
        let url = crate::model::without_credentials(url.split('?').next().unwrap_or_default());
        url.trim_end_matches('/').to_owned()
    };
    store(url) == store(other)
}
