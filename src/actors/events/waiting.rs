//! Who waits for volumes, and when it is time to say how far they are. Pure: the time is told.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Subject;
use crate::model::VolumeId;

/// What takes less is not worth a word.
const FIRST: Duration = Duration::from_secs(3);
/// Between two words on one pod: from the first to the second, doubling. A build of an hour then
/// leaves some thirty Events.
const DISTANCE: Duration = Duration::from_secs(15);
const DISTANCE_MAX: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Waiting {
    subject: Subject,
    since: Instant,
}

/// When a pod was spoken of last.
#[derive(Debug)]
struct Said {
    at: Instant,
    next: Instant,
    distance: Duration,
}

/// A word that is due: the volumes of one pod that wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) volumes: Vec<Subject>,
    /// For how long the first of them has.
    pub(super) since: Duration,
}

#[derive(Debug, Default)]
pub(super) struct WaitingList {
    volumes: HashMap<VolumeId, Waiting>,
    /// By the pod's uid. It outlives the waiting, so that a kubelet that asks again and again does
    /// not bring the words closer.
    said: HashMap<String, Said>,
}

impl WaitingList {
    pub(super) fn began(&mut self, subject: Subject, now: Instant) {
        let id = subject.id.clone();
        self.volumes.entry(id).or_insert(Waiting { subject, since: now });
    }

    pub(super) fn ended(&mut self, id: &VolumeId) {
        self.volumes.remove(id);
    }

    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        self.said.retain(|_, said| now - said.at < 2 * DISTANCE_MAX);
        let mut pods: HashMap<&str, Vec<&Waiting>> = HashMap::new();
        for waiting in self.volumes.values() {
            pods.entry(&waiting.subject.pod.uid).or_default().push(waiting);
        }
        let mut due = Vec::new();
        for (uid, mut volumes) in pods {
            let since = volumes.iter().map(|w| now - w.since).max().unwrap_or_default();
            let said = self.said.get(uid);
            if since < FIRST || said.is_some_and(|said| now < said.next) {
                continue;
            }
            let distance = said.map_or(DISTANCE, |said| (said.distance * 2).min(DISTANCE_MAX));
            self.said.insert(uid.to_owned(), Said { at: now, next: now + distance, distance });
            volumes.sort_by(|a, b| a.subject.name.cmp(&b.subject.name));
            let volumes = volumes.into_iter().map(|w| w.subject.clone()).collect();
            due.push(Due { volumes, since });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodInfo;

    const SECOND: Duration = Duration::from_secs(1);

    fn subject(pod: &str, name: &str) -> Subject {
        let id = VolumeId::parse(&format!("csi-{pod}-{name}")).unwrap();
        let pod = PodInfo { uid: pod.to_owned(), ..PodInfo::default() };
        Subject { id, pod, name: name.to_owned() }
    }

    /// The seconds at which something is said of a pod, if it is looked every second.
    fn said(list: &mut WaitingList, start: Instant, seconds: std::ops::Range<u32>) -> Vec<u32> {
        seconds.filter(|n| !list.due(start + *n * SECOND).is_empty()).collect()
    }

    #[test]
    fn a_long_build_is_spoken_of_less_and_less() {
        let (start, mut list) = (Instant::now(), WaitingList::default());
        list.began(subject("a", "nix"), start);
        let said = said(&mut list, start, 0..600);
        assert_eq!(said, [3, 18, 48, 108, 228, 348, 468, 588]);
    }

    #[test]
    fn what_is_fast_is_not_spoken_of() {
        let (start, mut list) = (Instant::now(), WaitingList::default());
        list.began(subject("a", "nix"), start);
        assert!(list.due(start + 2 * SECOND).is_empty());
        list.ended(&subject("a", "nix").id);
        assert!(said(&mut list, start, 2..100).is_empty());
    }

    #[test]
    fn volumes_of_a_pod_are_one_word_and_another_pod_is_another() {
        let (start, mut list) = (Instant::now(), WaitingList::default());
        for (pod, name) in [("a", "two"), ("a", "one"), ("b", "nix")] {
            list.began(subject(pod, name), start);
        }
        list.began(subject("a", "one"), start + SECOND);
        let mut due = list.due(start + 5 * SECOND);
        due.sort_by_key(|due| due.volumes.len());
        assert_eq!(due[0].volumes, [subject("b", "nix")]);
        assert_eq!(due[1].volumes, [subject("a", "one"), subject("a", "two")]);
        assert_eq!(due[1].since, 5 * SECOND);
    }

    /// The kubelet calls again and again, and each call begins anew.
    #[test]
    fn who_begins_anew_does_not_bring_words_closer() {
        let (start, mut list) = (Instant::now(), WaitingList::default());
        let mut times = Vec::new();
        for second in 0..300 {
            let now = start + second * SECOND;
            if second % 5 == 0 {
                list.ended(&subject("a", "nix").id);
                list.began(subject("a", "nix"), now);
            }
            if !list.due(now).is_empty() {
                times.push(second);
            }
        }
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 15), "{times:?}");
        list.ended(&subject("a", "nix").id);
        assert!(list.due(start + 1000 * SECOND).is_empty());
        assert!(list.said.is_empty() && list.volumes.is_empty(), "nothing is kept for ever");
    }
}
