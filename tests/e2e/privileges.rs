//! What the pods of the project's manifests can do: on a node, in the cache, and at the API server.
//! docs/security.md says why.

use std::collections::BTreeMap;

use nix_csi::jail::capabilities::{CACHE, CapabilitySet, DAEMON, NODE, NOTHING, SSHD, names};
use serde_json::Value;

use crate::cache::WithCache;
use crate::cluster::{Cluster, LONG, wait};
use crate::leftovers::nothing_left;
use crate::programs::pod;

const NODE_POD: &str = "daemonset/nix-csi-node";
const CACHE_POD: &str = "statefulset/nix-cache";

fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.kubectl(&["-n", "nix-csi", "exec", pod, "--", "sh", "-c", script])
}

/// One process of a pod.
#[derive(Debug, Clone)]
struct Process {
    command: String,
    status: BTreeMap<String, String>,
}

impl Process {
    fn set(&self, name: &str) -> CapabilitySet {
        CapabilitySet::from_bits_retain(u64::from_str_radix(&self.status[name], 16).unwrap())
    }

    fn uid(&self) -> &str {
        self.status["Uid"].split_whitespace().next().unwrap()
    }
}

/// All but the one that looks. A shell's own tools are enough, and it has all that the container has.
fn processes(cluster: &Cluster, pod: &str) -> Vec<Process> {
    let script = "for p in /proc/[0-9]*; do [ ${p#/proc/} = $$ ] || {
        echo \"== $(tr '\\0' ' ' <$p/cmdline)\"; cat $p/status; } 2>/dev/null; done; true";
    let said = exec(cluster, pod, script);
    let each = said.split("== ").filter_map(|part| {
        let (command, status) = part.split_once('\n')?;
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        let status: BTreeMap<_, _> =
            fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        // A process that ends has a bit of it.
        let whole = status.contains_key("Seccomp") && !command.is_empty();
        whole.then(|| Process { command: command.trim().to_owned(), status })
    });
    each.collect()
}

/// Which of the lists of docs/security.md a process goes by.
fn list_of(process: &Process) -> Option<(&'static str, CapabilitySet)> {
    let name = &*process.status["Name"];
    let role = match name {
        "nix-csi-init" => NOTHING,
        "nix-csi-guard" => CapabilitySet::KILL,
        "nix-csi" if process.command.ends_with(" node") => NODE,
        "nix-csi" if process.command.ends_with(" cache") => CACHE,
        "nix-daemon" => DAEMON,
        "sshd" => SSHD,
        "nix" | "nix-build" if process.uid() == "30999" => NOTHING,
        _ => return None,
    };
    let names = ["nix-csi-init", "nix-csi-guard", "nix-csi", "nix-daemon", "sshd"];
    Some((names.into_iter().find(|known| *known == name).unwrap_or("evaluator"), role))
}

/// That all go by their lists, of which a container may have less; how many there were of each.
fn compare(pod: &[Process], container: CapabilitySet) -> BTreeMap<&'static str, usize> {
    let mut found = BTreeMap::new();
    for process in pod {
        let Some((role, list)) = list_of(process) else {
            continue;
        };
        for set in ["CapEff", "CapPrm"] {
            let (has, wanted) = (names(process.set(set)), names(list & container));
            assert_eq!(has, wanted, "{set} of {}", process.command);
        }
        let bound = process.set("CapBnd");
        assert!(
            if container.contains(CapabilitySet::SETPCAP) {
                bound == list & container
            } else {
                container.contains(bound)
            },
            "CapBnd of {}: {}",
            process.command,
            names(bound)
        );
        assert_eq!(process.status["NoNewPrivs"], "1", "{}", process.command);
        *found.entry(role).or_default() += 1;
    }
    found
}

/// It takes a minute or so; the pod is deleted before.
const SLOW: &str = "let many = n: builtins.genList (x: x) n; in builtins.toString (builtins.foldl' \
    (a: _: builtins.foldl' builtins.add a (many 100000)) 0 (many 20000))";

#[test]
fn each_process_has_what_is_documented_and_no_more() {
    let cache = WithCache::start();
    let cluster = &cache.cluster;
    let space = cluster.space("privileges");
    space.apply(vec![pod("slow", ("nixExpr", SLOW), "serve")]);
    let node = wait("an evaluation", LONG, || {
        let all = processes(cluster, NODE_POD);
        all.iter().any(|process| process.uid() == "30999").then_some(all)
    });
    let found = compare(&node, CapabilitySet::all());
    for role in ["nix-csi-init", "nix-csi-guard", "nix-csi", "nix-daemon", "sshd", "evaluator"] {
        assert!(found.contains_key(role), "no {role} among {found:?}");
    }
    for process in &node {
        assert!(NODE.contains(process.set("CapBnd")), "{process:?}");
        if process.uid() == "30999" {
            assert_eq!((process.set("CapBnd"), &*process.status["Seccomp"]), (NOTHING, "2"));
        }
    }

    let given = cluster.json(&["-n", "nix-csi", "get", CACHE_POD]);
    let context = &given["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    let container: CapabilitySet = context["capabilities"]["add"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| CapabilitySet::from_name(name.as_str().unwrap()).unwrap())
        .collect();
    assert!(CACHE.contains(container), "{}", names(container));
    let all = processes(cluster, CACHE_POD);
    let found = compare(&all, container);
    for role in ["nix-csi", "nix-daemon", "sshd"] {
        assert!(found.contains_key(role), "no {role} among {found:?}");
    }
    assert!(all.iter().all(|process| process.status["Seccomp"] == "2"), "{all:?}");
    space.delete_pod("slow");
    drop(space);
    nothing_left(cluster);
}

#[test]
fn a_pod_has_its_own_namespaces_and_writes_only_where_it_must() {
    let cache = WithCache::start();
    let cluster = &cache.cluster;
    for pod in [NODE_POD, CACHE_POD] {
        for namespace in ["pid", "net", "ipc", "uts", "mnt"] {
            let link = format!("/proc/1/ns/{namespace}");
            let here = exec(cluster, pod, &format!("readlink {link}"));
            assert_ne!(here, cluster.on_node(&["readlink", &link]), "{pod}: {namespace}");
        }
        let tries = "for d in / /etc /usr/bin /var /var/lib /root /home /opt /srv; do
            (: >$d/nix-csi-was-here) 2>/dev/null && echo $d; done; true";
        assert_eq!(exec(cluster, pod, tries), "", "{pod}");
    }
    let host = exec(cluster, CACHE_POD, "(echo x >/proc/sys/kernel/core_pattern) 2>&1; true");
    assert!(host.contains("Read-only file system"), "{host}");
}

/// nix-daemon's own is for everybody, who are told apart by whom they run as.
#[test]
fn sockets_are_roots_alone() {
    let cluster = Cluster::get();
    let script = "stat -c '%a %u %n' /var/lib/kubelet/plugins/nix.csi.store/*.sock \
        /var/lib/kubelet/plugins_registry/nix.csi.store@reg.sock /run/nix-csi/*.sock";
    let said = exec(&cluster, NODE_POD, script);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.lines().all(|line| line.starts_with("600 0 ")), "{said}");
}

/// Resource and verbs, of each that is not what every account may do.
fn rights(cluster: &Cluster, account: &str) -> Vec<String> {
    let token = cluster.kubectl(&["-n", "nix-csi", "create", "token", account]);
    let ca = cluster.dir().join("pki/ca.crt");
    // What the token's holder is told, not what an administrator is told of them.
    let config = cluster.json(&["config", "view", "--raw"]);
    let server =
        format!("--server={}", config["clusters"][0]["cluster"]["server"].as_str().unwrap());
    let with = [
        "--kubeconfig=/dev/null",
        &server,
        &format!("--certificate-authority={}", ca.display()),
        &format!("--token={}", token.trim()),
    ];
    for namespace in ["nix-csi", "kube-system", "default"] {
        for verb in ["get", "list", "watch"] {
            let args = ["auth", "can-i", verb, "secrets", "-n", namespace];
            assert!(cluster.ask(&[&with[..], &args].concat()).is_none(), "{account} may {verb}");
        }
    }
    assert!(cluster.ask(&[&with[..], &["get", "secrets", "-A"]].concat()).is_none());
    let review = serde_json::json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": "nix-csi" },
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), review.to_string()).unwrap();
    let create = ["create", "--validate=false", "-o", "json", "-f", file.path().to_str().unwrap()];
    let told: Value =
        serde_json::from_str(&cluster.kubectl(&[&with[..], &create].concat())).unwrap();
    let words = |list: &Value| {
        let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(",")
    };
    let rules = told["status"]["resourceRules"].as_array().unwrap().iter();
    let mut rules: Vec<_> = rules
        .map(|rule| format!("{}: {}", words(&rule["resources"]), words(&rule["verbs"])))
        .filter(|rule| !rule.starts_with("selfsubject"))
        .collect();
    rules.sort();
    rules
}

#[test]
fn no_account_reads_secrets_or_does_more_than_it_must() {
    let cache = WithCache::start();
    let wanted = [
        // Of the policy alone, by its name.
        "configmaps: get,list,watch",
        "csinodes: get",
        "events: create,patch",
        // Of the startup taint, which these manifests have on; a policy leaves one taint of it.
        "nodes: get,patch",
        "pods: get,list,watch",
    ];
    assert_eq!(rights(&cache.cluster, "nix-csi-node"), wanted);
    assert_eq!(rights(&cache.cluster, "nix-csi-cache"), ["pods: list,watch"]);
    assert_eq!(rights(&cache.cluster, "default"), [""; 0]);
}
