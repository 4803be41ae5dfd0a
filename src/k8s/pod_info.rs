//! The keys that the kubelet adds to `volume_context` with `podInfoOnMount`
//! (Kubernetes CSI documentation, "Pod Info on Mount").

use std::collections::{BTreeMap, HashMap};

use crate::model::PodInfo;

const PREFIX: &str = "csi.storage.k8s.io/";

/// Takes the kubelet's keys out of a publish's attributes: the user's own, and the pod if the
/// kubelet named one.
pub fn split_attributes(
    context: HashMap<String, String>,
) -> (BTreeMap<String, String>, Option<PodInfo>) {
    let mut own = BTreeMap::new();
    let mut pod = PodInfo::default();
    for (key, value) in context {
        match key.strip_prefix(PREFIX) {
            None => {
                own.insert(key, value);
            }
            Some("pod.name") => pod.name = value,
            Some("pod.namespace") => pod.namespace = value,
            Some("pod.uid") => pod.uid = value,
            Some("serviceAccount.name") => pod.service_account = value,
            Some("ephemeral") => pod.is_ephemeral = value == "true",
            Some(_) => {}
        }
    }
    let named = !pod.name.is_empty();
    (own, named.then_some(pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_keys_are_not_the_users() {
        let context = [
            ("csi.storage.k8s.io/pod.name", "p"),
            ("csi.storage.k8s.io/pod.namespace", "ns"),
            ("csi.storage.k8s.io/pod.uid", "u"),
            ("csi.storage.k8s.io/serviceAccount.name", "sa"),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("nixExpr", "1"),
        ];
        let context = context.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (own, pod) = split_attributes(context);
        assert_eq!(own, BTreeMap::from([("nixExpr".to_owned(), "1".to_owned())]));
        let pod = pod.unwrap();
        assert_eq!((&*pod.name, &*pod.namespace, &*pod.service_account), ("p", "ns", "sa"));
        assert!(pod.is_ephemeral);
        assert_eq!(split_attributes(HashMap::new()).1, None);
    }
}
