//! From pods to the file's text.

use std::time::Duration;

use super::*;
use crate::k8s::fake_builders;
use crate::model::{KeyFile, PublicKey};

const PUB: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE7V/FEoDBlpAh7737V2Qq63mp66O9YXLdADB3EVD2hg";

fn config(address: AddressKind) -> RegistryConfig {
    RegistryConfig {
        key: Some(KeyFile::parse("/keys/id".as_ref()).unwrap()),
        address,
        debounce: Duration::ZERO,
        ..RegistryConfig::new("/etc/nix/machines".into())
    }
}

fn pod(name: &str, ip: &str) -> BuilderPod {
    let (uid, name) = (format!("uid-{name}"), name.to_owned());
    BuilderPod { uid, name, ip: ip.parse().ok(), ..fake_builders::pod(0) }
}

fn says(pod: BuilderPod, key: &str, value: &str) -> BuilderPod {
    let mut annotations = pod.annotations;
    annotations.insert(key.to_owned(), value.to_owned());
    BuilderPod { annotations, ..pod }
}

fn builders(pods: Vec<BuilderPod>, config: &RegistryConfig) -> Vec<Builder> {
    pods.into_iter().map(|pod| Builder::of(pod, config, None)).collect()
}

fn text(pods: Vec<BuilderPod>, config: &RegistryConfig) -> String {
    plan(builders(pods, config).iter(), config).text()
}

#[test]
fn the_file_is_sorted_and_the_same_in_any_order() {
    let config = config(AddressKind::PodIp);
    let mut pods = vec![
        pod("a", "10.0.0.10"),
        says(pod("b", "10.0.0.9"), "builder-max-jobs", "4"),
        pod("c", "fd00::1"),
    ];
    let expected = "ssh-ng://nix@10.0.0.9 - /keys/id 4 1 - - -\n\
                    ssh-ng://nix@10.0.0.10 - /keys/id 1 1 - - -\n\
                    ssh-ng://nix@[fd00::1] - /keys/id 1 1 - - -\n";
    assert_eq!(text(pods.clone(), &config), expected);
    pods.reverse();
    assert_eq!(text(pods, &config), expected);
    assert_eq!(text(vec![], &config), "");
}

#[test]
fn every_line_has_the_host_key() {
    let host_key = PublicKey::parse(PUB).unwrap();
    let end = format!(" {}\n", host_key.encoded());
    let config = RegistryConfig { host_key: Some(host_key), ..config(AddressKind::PodIp) };
    assert!(text(vec![pod("a", "10.0.0.1")], &config).ends_with(&end));
}

#[test]
fn only_ready_builders_are_in_the_file_and_all_are_counted() {
    let config = config(AddressKind::PodIp);
    let mut known = builders(
        vec![
            pod("ready", "10.0.0.1"),
            BuilderPod { is_ready: false, ..pod("starting", "10.0.0.2") },
            pod("nowhere", ""),
            says(pod("wrong", "10.0.0.3"), "builder-max-jobs", "many"),
            says(pod("out", "10.0.0.4"), "builder", "false"),
            pod("failing", "10.0.0.5"),
        ],
        &config,
    );
    for _ in 0..3 {
        known[5].bench.asked(false);
    }
    let planned = plan(known.iter(), &config);
    assert_eq!(planned.text(), "ssh-ng://nix@10.0.0.1 - /keys/id 1 1 - - -\n");
    // ready, not-ready, benched, invalid, excluded
    assert_eq!(planned.counts, [1, 2, 1, 1, 1]);
    known[5].bench.asked(true);
    assert_eq!(plan(known.iter(), &config).machines.len(), 2);
}

#[test]
fn the_counts_are_in_the_order_of_the_states() {
    for (at, state) in BuilderState::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, at);
    }
}

#[test]
fn two_pods_of_one_address_are_one_machine() {
    let config = config(AddressKind::PodIp);
    let first = says(pod("a", "10.0.0.1"), "builder-max-jobs", "2");
    for pods in [vec![first.clone(), pod("b", "10.0.0.1")], vec![pod("b", "10.0.0.1"), first]] {
        assert_eq!(text(pods, &config), "ssh-ng://nix@10.0.0.1 - /keys/id 2 1 - - -\n");
    }
}

#[test]
fn a_name_in_the_dns_is_taken_where_there_is_one() {
    let named = |subdomain: Option<&str>| BuilderPod {
        hostname: Some("a".to_owned()),
        subdomain: subdomain.map(str::to_owned),
        ..pod("a", "10.0.0.1")
    };
    let address = |pod, kind| Builder::of(pod, &config(kind), None).address.unwrap();
    let dns = "a.builders.nix.svc.cluster.local";
    assert_eq!(address(named(Some("builders")), AddressKind::Hostname).to_string(), dns);
    assert_eq!(address(named(Some("builders")), AddressKind::PodIp).to_string(), "10.0.0.1");
    for fallback in [None, Some("x y"), Some("x;y"), Some("")] {
        let builder = Builder::of(named(fallback), &config(AddressKind::Hostname), None);
        assert_eq!(builder.address.unwrap().to_string(), "10.0.0.1");
        assert!(builder.lacks_name);
    }
}

#[test]
fn two_pods_of_one_name_are_one_machine() {
    let named = |name: &str, ip: &str| BuilderPod {
        hostname: Some("same".to_owned()),
        subdomain: Some("builders".to_owned()),
        ..pod(name, ip)
    };
    let pods = vec![named("a", "10.0.0.1"), named("b", "10.0.0.2"), pod("c", "10.0.0.3")];
    let lines = text(pods, &config(AddressKind::Hostname));
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn people_are_told_why_a_builder_is_left_out() {
    let config = config(AddressKind::PodIp);
    let pods = vec![
        pod("fine", "10.0.0.1"),
        says(pod("wrong", "10.0.0.2"), "builder-features", "a b"),
        pod("failing", "10.0.0.3"),
    ];
    let mut known = builders(pods, &config);
    for _ in 0..3 {
        known[2].bench.asked(false);
    }
    let [fine, wrong, failing] = [0, 1, 2].map(|at| known[at].status());
    assert_eq!((fine.state, fine.reason), (BuilderState::Ready, None));
    assert_eq!(wrong.state, BuilderState::Invalid);
    assert!(wrong.reason.unwrap().contains("builder-features is \"a b\""));
    assert_eq!((failing.state, failing.reason), (BuilderState::Benched, None));
}

#[test]
fn what_is_wrong_with_a_pod_is_said_once() {
    let config = config(AddressKind::PodIp);
    let of = |pod| Builder::of(pod, &config, None);
    let wrong = |value| of(says(pod("a", "10.0.0.1"), "builder-max-jobs", value));
    let complains = |now: &Builder, before: Option<&Builder>| now.complaint(before).is_some();
    assert!(complains(&wrong("x"), None));
    assert!(!complains(&wrong("x"), Some(&wrong("x"))));
    assert!(complains(&wrong("y"), Some(&wrong("x"))));
    assert!(!complains(&of(pod("a", "10.0.0.1")), Some(&wrong("x"))));
    assert!(complains(&wrong("x"), Some(&of(pod("a", "10.0.0.1")))));
}
