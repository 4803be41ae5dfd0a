//! What is fuzzed: a function per target, which reads input as the driver does and panics where a property
//! of what it read does not hold. `fuzz/` runs them, and the tests replay the corpus. In no build of the
//! driver.

mod builders;
mod names;
mod policy;
#[cfg(test)]
mod replay;
mod requests;
mod secrets;

use std::borrow::Cow;
use std::fmt::{Debug, Display};

use crate::actors::{keeper, reconciler, registry, uploads, volume};
use crate::{grpc, mount, nix, relay};
pub(crate) use builders::{announced, one_machine};

type Target = fn(&[u8]);

/// By the names of their binaries and of the directories of their corpora.
const TARGETS: [(&str, Target); 35] = [
    ("annotations", registry::fuzz_annotations),
    ("announcement", builders::announcement),
    ("authorized_keys", reconciler::fuzz_keys),
    ("derivation", nix::fuzz::derivation),
    ("gc_output", nix::fuzz::gc_output),
    ("greeting", nix::fuzz::greeting),
    ("internal_log", nix::fuzz::internal_log),
    ("kept_record", keeper::fuzz_record),
    ("machine", builders::machine),
    ("mount_records", mount::fuzz_records),
    ("nix_conf", nix::fuzz::nix_conf),
    ("nix_output", nix::fuzz::nix_output),
    ("nix_settings", nix::fuzz::settings),
    ("pod_tokens", secrets::pod_tokens),
    ("policy", policy::policy),
    ("process_files", nix::fuzz::process_files),
    ("public_keys", builders::public_keys),
    ("publish_request", grpc::fuzz_publish),
    ("redactor", nix::fuzz::redactor),
    ("secret", secrets::secret),
    ("secrets", nix::fuzz::secrets),
    ("session_key", relay::fuzz_key),
    ("signature", secrets::signature),
    ("source", requests::source),
    ("source_list", requests::source_list),
    ("store_path", names::store_path),
    ("substituter", nix::fuzz::substituter),
    ("target_path", names::target_path),
    ("text_clean", nix::fuzz::text_clean),
    ("token_exchange", nix::fuzz::token_exchange),
    ("upload_record", uploads::fuzz_record),
    ("view_id", names::view_id),
    ("volume_id", names::volume_id),
    ("volume_record", volume::fuzz_record),
    ("volume_size", names::volume_size),
];

/// Gives `data` to the target `name`.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target's name");
    target(data);
}

/// Bytes of what is said about bad input, whatever the input: it becomes a status and an Event.
const MAX_MESSAGE: usize = 4096;

pub(crate) fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// What is said about bad input: one line, and not all of the input.
pub(crate) fn refusal(error: &impl Display) {
    let message = error.to_string();
    assert!(message.len() <= MAX_MESSAGE, "{} bytes of message", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}

/// `name` is one component, so that a file of that name lies in its directory.
pub(crate) fn component(name: &str) {
    let dir = std::path::Path::new("/dir");
    let path = dir.join(name);
    assert_eq!(path.parent(), Some(dir), "{name:?}");
    assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(name));
    assert!(!name.contains(['/', '\0']) && !matches!(name, "." | ".."), "{name:?}");
    assert!(name.len() <= 255, "{name:?}");
}

/// What was parsed is parsed again from what it prints, through JSON too.
pub(crate) fn again<T, E: Debug>(value: &T, parse: impl Fn(&str) -> Result<T, E>)
where
    T: Display + Debug + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    assert_eq!(&parse(&value.to_string()).expect("what it prints"), value);
    let json = serde_json::to_string(value).expect("JSON");
    assert_eq!(&serde_json::from_str::<T>(&json).expect("what it wrote"), value);
}

/// Lines `key=value`, where `\n` and `\\` stand for a newline and a backslash.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    let plain = |text: &str| {
        let parts = text.split("\\\\").map(|part| part.replace("\\n", "\n"));
        parts.collect::<Vec<_>>().join("\\")
    };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(move |(key, value)| (plain(key), plain(value)))
}
