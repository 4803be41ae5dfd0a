//! What is known of the node's pods. Cheap to clone; all clones are one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::k8s::{Api, Pod, PodChange};
use crate::model::PodInfo;

/// How long a pod that has left is remembered: a call of the kubelet's for it may still come in.
const REMEMBER: Duration = Duration::from_secs(600);

/// The longest that a publish waits for the API server's word on a pod that the watch has not shown yet.
const ASK: Duration = Duration::from_secs(1);

/// The node's pods, for who needs to know about one.
#[derive(Debug, Clone)]
pub struct PodLookup {
    pub table: PodTable,
    pub api: Arc<dyn Api>,
}

impl PodLookup {
    /// Whether the pod shares the node's user namespace; `None`: nobody can say.
    pub async fn host_users(&self, pod: &PodInfo) -> Option<bool> {
        if let Some(known) = self.table.pod(&pod.uid) {
            return Some(known.host_users);
        }
        // The kubelet heard of the pod first. A static pod has another uid with the API server.
        let asked = self.api.find_pod(&pod.namespace, &pod.name);
        let found = tokio::time::timeout(ASK, asked).await.ok()?.ok()?;
        found.map(|pod| pod.host_users)
    }
}

#[derive(Debug, Clone)]
pub struct PodTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By uid.
    pods: DashMap<String, Seen>,
    /// Whether the list is whole; false again when the watch is lost.
    is_whole: AtomicBool,
    /// Counts departures, for who waits for one.
    departures: watch::Sender<u64>,
}

#[derive(Debug)]
enum Seen {
    Here(Pod),
    Left(Instant),
}

impl Default for PodTable {
    fn default() -> Self {
        let (departures, _) = watch::channel(0);
        let inner = Inner { pods: DashMap::new(), is_whole: AtomicBool::new(false), departures };
        Self(Arc::new(inner))
    }
}

impl PodTable {
    /// What the API server says of this pod; `None`: it is not known, or not known yet.
    pub fn pod(&self, uid: &str) -> Option<Pod> {
        self.0.pods.get(uid).and_then(|seen| match seen.value() {
            Seen::Here(pod) => Some(pod.clone()),
            Seen::Left(_) => None,
        })
    }

    /// Whether every pod of the node is in the table, as far as can be known.
    pub fn is_whole(&self) -> bool {
        self.0.is_whole.load(Ordering::Acquire)
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.0.pods.iter().filter(|seen| matches!(seen.value(), Seen::Here(_))).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends when somebody has deleted the pod. One that was never seen is waited for.
    pub async fn left(&self, pod: &PodInfo) {
        let mut departures = self.0.departures.subscribe();
        while !self.has_left(&pod.uid) {
            if departures.changed().await.is_err() {
                return futures::future::pending().await;
            }
        }
    }

    fn has_left(&self, uid: &str) -> bool {
        self.0.pods.get(uid).is_some_and(|seen| match seen.value() {
            Seen::Here(pod) => pod.is_leaving,
            Seen::Left(_) => true,
        })
    }

    pub(super) fn learn(&self, change: PodChange) {
        let departed = match change {
            PodChange::Reset(pods) => self.reset(pods),
            PodChange::Applied(pod) => {
                let leaving = pod.is_leaving;
                self.0.pods.insert(pod.uid.clone(), Seen::Here(pod));
                leaving
            }
            PodChange::Deleted(pod) => {
                self.0.pods.insert(pod.uid, Seen::Left(Instant::now()));
                true
            }
            PodChange::Lost(_) => {
                self.0.is_whole.store(false, Ordering::Release);
                false
            }
        };
        if departed {
            self.0.departures.send_modify(|count| *count += 1);
        }
    }

    /// What is not in the list has left.
    fn reset(&self, pods: Vec<Pod>) -> bool {
        let now = Instant::now();
        let listed: std::collections::HashSet<_> = pods.iter().map(|p| p.uid.clone()).collect();
        self.0.pods.retain(|_, seen| !matches!(seen, Seen::Left(at) if now - *at >= REMEMBER));
        for mut seen in self.0.pods.iter_mut() {
            if matches!(seen.value(), Seen::Here(_)) && !listed.contains(seen.key()) {
                *seen.value_mut() = Seen::Left(now);
            }
        }
        for pod in pods {
            self.0.pods.insert(pod.uid.clone(), Seen::Here(pod));
        }
        self.0.is_whole.store(true, Ordering::Release);
        true
    }

    /// Forgets pods that left long ago.
    pub(super) fn forget_old(&self) {
        let now = Instant::now();
        self.0.pods.retain(|_, seen| !matches!(seen, Seen::Left(at) if now - *at >= REMEMBER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn pod(uid: &str) -> Pod {
        let (namespace, name) = ("ns".to_owned(), uid.to_owned());
        Pod { uid: uid.to_owned(), namespace, name, host_users: true, is_leaving: false }
    }

    fn info(uid: &str) -> PodInfo {
        PodInfo { uid: uid.to_owned(), ..PodInfo::default() }
    }

    #[tokio::test]
    async fn who_waits_for_a_pod_to_leave_hears_of_it() {
        let leaving = |uid| PodChange::Applied(Pod { is_leaving: true, ..pod(uid) });
        let ways = [PodChange::Deleted(pod("a")), leaving("a"), PodChange::Reset(vec![pod("b")])];
        for way in ways {
            let table = PodTable::default();
            let a = info("a");
            let left = table.left(&a);
            tokio::pin!(left);
            assert!(left.as_mut().now_or_never().is_none(), "never seen");
            table.learn(PodChange::Reset(vec![pod("a"), pod("b")]));
            assert!(left.as_mut().now_or_never().is_none(), "it is here");
            table.learn(PodChange::Deleted(pod("b")));
            assert!(left.as_mut().now_or_never().is_none(), "another has left");
            table.learn(way);
            left.await;
            table.left(&a).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_watch_makes_the_table_doubtful_and_a_list_makes_it_whole() {
        let table = PodTable::default();
        assert!(!table.is_whole());
        table.learn(PodChange::Reset(vec![pod("a")]));
        assert!(table.is_whole());
        table.learn(PodChange::Lost("why".to_owned()));
        assert!(!table.is_whole());
        assert_eq!(table.pod("a"), Some(pod("a")), "what was known still is");
        table.learn(PodChange::Reset(vec![]));
        assert_eq!((table.is_whole(), table.len()), (true, 0));
        tokio::time::advance(REMEMBER).await;
        table.forget_old();
        assert!(table.0.pods.is_empty());
    }
}
