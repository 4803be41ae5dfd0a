//! Events on pods, in the form of the events.k8s.io/v1 API.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::model::PodInfo;

/// The API server's limit of `note` ("should be less than 1kB": 1,024 bytes, `NoteLengthLimit` of
/// its validation).
const NOTE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Normal,
    Warning,
}

/// Something that happened to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    pub pod: PodInfo,
    pub kind: Kind,
    /// One word in CamelCase, such as `StoreMounted`: what `kubectl get events` filters by.
    pub reason: &'static str,
    /// What the driver did, one word in CamelCase.
    pub action: &'static str,
    /// For a person; cut to the API's 1,024 bytes.
    pub note: String,
    /// When it happened; it may be posted much later.
    pub at: Timestamp,
}

/// The name by which a posted Event is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventName {
    pub namespace: String,
    pub name: String,
}

impl Event {
    /// `reporter` is the driver, `instance` the node.
    pub(super) fn object(&self, reporter: &str, instance: &str) -> events::Event {
        let PodInfo { name, namespace, uid, .. } = self.pod.clone();
        // Like client-go's, unique as long as nothing happens twice to a pod in one nanosecond. It
        // stays the same when it is posted again, because the answer was lost. An object's name has 253
        // bytes at most, a pod's too.
        let short: String = name.chars().take(200).collect();
        let metadata = ObjectMeta {
            name: Some(format!("{short}.{:x}", self.at.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        };
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name),
            namespace: Some(namespace),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        let kind = match self.kind {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        };
        events::Event {
            metadata,
            regarding: Some(regarding),
            type_: Some(kind.to_owned()),
            reason: Some(self.reason.to_owned()),
            action: Some(self.action.to_owned()),
            note: Some(cut(&self.note)),
            event_time: Some(MicroTime(self.at)),
            reporting_controller: Some(reporter.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            ..events::Event::default()
        }
    }
}

/// At the end of a character, with a sign that something is missing.
fn cut(note: &str) -> String {
    const MORE: &str = " …";
    if note.len() <= NOTE {
        return note.to_owned();
    }
    let mut end = NOTE - MORE.len();
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(1024)).len(), 1024);
        let long = cut(&"ä".repeat(600));
        assert!(long.len() <= 1024 && long.len() > 1018 && long.ends_with(" …"), "{}", long.len());
    }

    #[test]
    fn an_event_is_on_its_pod() {
        let pod = PodInfo {
            name: "p".repeat(253),
            namespace: "ns".into(),
            uid: "u".into(),
            ..PodInfo::default()
        };
        let event = Event {
            pod,
            kind: Kind::Warning,
            reason: "R",
            action: "A",
            note: "n".into(),
            at: Timestamp::now(),
        };
        let object = event.object("driver", "node");
        let regarding = object.regarding.unwrap();
        assert_eq!(regarding.uid.as_deref(), Some("u"));
        assert_eq!(regarding.name.unwrap().len(), 253);
        assert_eq!(object.metadata.namespace.as_deref(), Some("ns"));
        assert!(object.metadata.name.unwrap().len() <= 253);
        assert_eq!(object.type_.as_deref(), Some("Warning"));
    }
}
