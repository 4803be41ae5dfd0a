//! The chart: what it renders from which values, and what it refuses.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use nix_csi::config::Cli;
use serde_json::{Value, json};

use super::manifests::{
    chart, documents, list, options, parse, render, root, run_helm, template, text, values,
};
use super::settings;

/// Directories below `deploy/manifests`, and the options that they are rendered with.
const MANIFESTS: [(&str, &[&str]); 2] = [("default", &[]), ("cache", &["cache"])];

fn refused(args: &[&str]) -> String {
    template(args).expect_err(&args.join(" "))
}

fn object<'v>(objects: &'v [Value], kind: &str, name: &str) -> &'v Value {
    let is_it = |o: &&Value| text(o, "/kind") == kind && text(o, "/metadata/name") == name;
    objects.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn with(args: &[&str]) -> Vec<Value> {
    parse(&template(args).unwrap())
}

fn env<'v>(workload: &'v Value, name: &str) -> Option<&'v Value> {
    let all = list(workload, "/spec/template/spec/containers/0/env");
    let mut found = all.iter().filter(|entry| entry["name"] == name);
    let first = found.next();
    assert!(found.next().is_none(), "{name} is there twice");
    first.map(|entry| &entry["value"])
}

#[test]
fn it_is_a_good_chart_with_every_option() {
    let chart = chart();
    for option in options() {
        let args = ["lint", "--strict", chart.to_str().unwrap(), "--values", &values(&option)];
        run_helm(&args).unwrap_or_else(|error| panic!("{option}: {error}"));
    }
    run_helm(&["lint", "--strict", chart.to_str().unwrap()]).unwrap();
}

#[test]
fn its_version_is_the_drivers() {
    let chart = documents(&chart().join("Chart.yaml")).remove(0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((text(&chart, "/version"), text(&chart, "/appVersion")), (version, version));
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    for (args, words) in [
        (["--set", "nodes.storePath=/a"], "'nodes' not allowed"),
        (["--set", "node.storepath=/a"], "'storepath' not allowed"),
        (["--set", "node.storePath=a/b"], "/node/storePath"),
        (["--set", "node.env.BUILD_SLOTS=x"], "'BUILD_SLOTS' not allowed"),
        (["--set", "node.env.NIX_CSI_BUILD_SLOTS=8"], "got number, want string"),
        (["--set", "cache.buildOn=there"], "/cache/buildOn"),
        (["--set", "cache.authorizedKeys.me=AAAA"], "/cache/authorizedKeys/me"),
        (["--set", "image.digest=abc"], "/image/digest"),
        (["--set", "gc.olderThan=soon"], "/gc/olderThan"),
        (["--set", "gc.highWatermark=101"], "/gc/highWatermark"),
        (["--set", "node.startupTaint=true,node.registrarSidecar.enabled=true"], "set one of them"),
        (["--set", "node.keep=a#b,node.keepConfigMap=c"], "set one of them"),
        (["--set", "image.fromNix=true,node.hostNix.enabled=true"], "set one of them"),
        (["--set", "node.storePath=/nix"], "/node/storePath"),
        (["--set", "node.updateStrategy.rollingUpdate.maxSurge=1"], "'maxSurge' not allowed"),
        (["--set", "gc.lowWatermark=90"], "gc.lowWatermark: 90 is above gc.highWatermark 85"),
        (["--set", "node.podLabels.app=x"], "node.podLabels: app is the chart's own"),
        (["--set", "node.env.NIX_CSI_NODE_NAME=x"], "node.env.NIX_CSI_NODE_NAME: the chart sets"),
        (
            ["--set", "node.extraEnv[0].name=NIX_CSI_HTTP"],
            "node.extraEnv: NIX_CSI_HTTP is set already",
        ),
        (
            ["--set", "cache.enabled=true,cache.buildOn=cache,cache.builders.enabled=false"],
            "nothing would build",
        ),
    ] {
        let error = refused(&args);
        assert!(error.contains(words), "{args:?}: {error}");
    }
    let field = "csiDriver.preventPodSchedulingIfMissing=true";
    let error = refused(&["--set", field, "--kube-version", "1.35.4"]);
    assert!(error.contains("Kubernetes v1.35.4 has no such field"), "{error}");
    assert!(
        template(&["--set", field, "--kube-version", "1.37.0"]).unwrap().contains("Missing: true")
    );
}

/// Each value has its line in values.yaml and its place in the schema: what has a default is what is known.
#[test]
fn each_value_has_a_type_and_each_type_a_value() {
    fn compare(path: &str, schema: &Value, values: &Value, found: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{path} takes anything");
        for (name, schema) in properties {
            match values.get(name) {
                Some(value) => compare(&format!("{path}/{name}"), schema, value, found),
                None => found.push(format!("{path}/{name}")),
            }
        }
    }
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let values = documents(&chart().join("values.yaml")).remove(0);
    let mut without = Vec::new();
    compare("", &serde_json::from_str(&schema).unwrap(), &values, &mut without);
    // Helm's own, of charts that contain this one.
    assert_eq!(without, ["/global"]);
}

/// Environment names of a subcommand.
fn known(command: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    settings::environment(Cli::command().find_subcommand(command).unwrap(), &mut names);
    names
}

#[test]
fn the_driver_knows_each_setting() {
    for option in options() {
        let objects = render(Some(&option));
        for object in objects.iter().filter(|o| o.pointer("/spec/template/spec").is_some()) {
            let command = text(object, "/spec/template/spec/containers/0/args/0");
            let known = known(command);
            for entry in list(object, "/spec/template/spec/containers/0/env") {
                let name = text(entry, "/name");
                // What another one refers to, and one of the test's own.
                let of_kubernetes = ["NIX_CSI_NAMESPACE", "NIX_CSI_TEST_FIELD"].contains(&name);
                assert!(of_kubernetes || known.contains(name), "{option}: {command} has no {name}");
            }
        }
    }
}

#[test]
fn what_is_set_is_rendered() {
    let node = |args: &[&str]| object(&with(args), "DaemonSet", "nix-csi-node").clone();
    let image =
        |args: &[&str]| text(&node(args), "/spec/template/spec/containers/0/image").to_owned();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&[]), format!("ghcr.io/nix-csi/nix-csi:{version}"));
    assert_eq!(image(&["--set", "image.repository=a/b,image.tag=c"]), "a/b:c");
    let digest = format!("sha256:{}", "0".repeat(64));
    let set = format!("image.repository=a/b,image.tag=c,image.digest={digest}");
    assert_eq!(image(&["--set", &set]), format!("a/b@{digest}"));

    // A setting by its name wins over the chart's own, also where that is no plain value.
    let set = ["--set-string", "node.env.NIX_CSI_LOG_FORMAT=human,node.env.NIX_CSI_HOLD=90s"];
    let workload = node(&set);
    assert_eq!(env(&workload, "NIX_CSI_LOG_FORMAT").unwrap(), "human");
    assert_eq!(env(&workload, "NIX_CSI_HOLD").unwrap(), "90s");
    let file = "node.env.NIX_CSI_POLICY_FILE=/etc/policy";
    let workload = node(&["--set", file]);
    assert_eq!(env(&workload, "NIX_CSI_POLICY_CONFIG_MAP"), None);
    assert_eq!(env(&workload, "NIX_CSI_POLICY_FILE").unwrap(), "/etc/policy");

    let policy = with(&["--set", "policy.preset=strict"]);
    let policy =
        text(object(&policy, "ConfigMap", "nix-csi-policy"), "/data/policy.yaml").to_owned();
    assert_eq!(policy.trim(), "preset: strict");

    let key = "cache.authorizedKeys.me=ssh-ed25519 AAAA me";
    let keys = with(&["--set", "cache.enabled=true", "--set", key]);
    let keys = &object(&keys, "ConfigMap", "nix-cache-authorized")["data"];
    assert_eq!(keys, &json!({ "chart-me.pub": "ssh-ed25519 AAAA me" }));
}

/// A copy of the chart whose `keys/` has a key.
#[test]
fn public_keys_beside_the_chart_may_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("chart");
    let status = std::process::Command::new("cp").arg("-rL").arg(chart()).arg(&copy).status();
    assert!(status.unwrap().success());
    fs::write(copy.join("keys/laptop.pub"), "ssh-ed25519 AAAA laptop\n").unwrap();
    let args = ["template", "nix-csi", copy.to_str().unwrap(), "--set", "cache.enabled=true"];
    let objects = parse(&run_helm(&args).unwrap());
    let keys = &object(&objects, "ConfigMap", "nix-cache-authorized")["data"];
    assert_eq!(keys, &json!({ "chart-laptop.pub": "ssh-ed25519 AAAA laptop" }));
}

#[test]
fn a_nodes_own_nix_is_lent_and_not_collected() {
    let objects = with(&["--set", "node.hostNix.enabled=true"]);
    let node = object(&objects, "DaemonSet", "nix-csi-node");
    let socket = "/nix/var/nix/daemon-socket/socket";
    assert_eq!(env(node, "NIX_CSI_NIX_DAEMON_SOCKET").unwrap(), socket);
    let store = list(node, "/spec/template/spec/volumes").iter().find(|v| v["name"] == "store");
    assert_eq!(store.unwrap()["hostPath"], json!({ "path": "/nix", "type": "Directory" }));
    let gc = |workload: &Value| {
        let all = list(workload, "/spec/template/spec/containers/0/env");
        all.iter().any(|entry| text(entry, "/name").starts_with("NIX_CSI_GC_"))
    };
    assert!(!gc(node));
    let objects = with(&["--set", "node.hostNix.enabled=true,gc.olderThan=2h"]);
    assert!(gc(object(&objects, "DaemonSet", "nix-csi-node")));
}

/// Nothing of a first driver is in a second one's way.
#[test]
fn two_drivers_have_nothing_in_common() {
    let others = "fullnameOverride=other,driverName=other.example.org,kubeletDir=/srv/kubelet,\
                  node.storePath=/srv/nix,node.runPath=/run/other,keys.nodeSecret=a,keys.cacheSecret=b,\
                  keys.publicConfigMap=c,keys.nodeAuthorizedConfigMap=d,keys.cacheAuthorizedConfigMap=e";
    let args = ["template", "other", chart().to_str().unwrap(), "--namespace", "others"]
        .map(str::to_owned);
    let more = ["--values", &values("everything"), "--set", others];
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more).collect();
    let objects = parse(&run_helm(&args).unwrap());
    let first = render(Some("everything"));
    let named = |object: &Value| {
        let meta = |field: &str| text(object, &format!("/metadata/{field}")).to_owned();
        (text(object, "/kind").to_owned(), meta("namespace"), meta("name"))
    };
    let first: BTreeSet<_> = first.iter().map(named).collect();
    let both: Vec<_> = objects.iter().map(named).filter(|name| first.contains(name)).collect();
    assert!(both.is_empty(), "{both:?}");
    for object in objects.iter().filter(|o| text(o, "/kind") != "ConfigMap") {
        let text = object.to_string();
        for word in [
            "/var/lib/kubelet",
            "/var/lib/nix-csi",
            "\"nix.csi.store",
            "nix-csi-node",
            "nix-csi:nix",
        ] {
            let text = text.replace("ghcr.io/nix-csi/nix-csi:", "");
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}

/// No write beyond what is said here, and no Secret.
#[test]
fn rights_are_few() {
    const WRITES: [(&str, &str, &str); 2] = [
        ("nix-csi-node", "events", "create patch"),
        // An admission policy leaves of it the taint of the account's own node.
        ("nix-csi-startup-taint", "nodes", "patch"),
    ];
    for option in options() {
        let objects = render(Some(&option));
        let guarded =
            objects.iter().any(|o| text(o, "/kind") == "ValidatingAdmissionPolicyBinding");
        for role in objects.iter().filter(|o| text(o, "/kind").ends_with("Role")) {
            for rule in list(role, "/rules") {
                let words = |field: &str| {
                    let words = list(rule, &format!("/{field}")).iter();
                    words.map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
                };
                let (resources, verbs) = (words("resources"), words("verbs"));
                let groups = words("apiGroups");
                for word in resources.iter().chain(&verbs).chain(&groups) {
                    assert_ne!(word, "*", "{option}: {role}");
                    assert_ne!(word, "secrets", "{option}: {role}");
                }
                let writes: Vec<_> = verbs
                    .iter()
                    .filter(|verb| !["get", "list", "watch"].contains(&verb.as_str()))
                    .cloned()
                    .collect();
                let name = text(role, "/metadata/name");
                let entry = (name, resources.join(" "), writes.join(" "));
                let is_known = WRITES
                    .iter()
                    .any(|known| (known.0, known.1.to_owned(), known.2.to_owned()) == entry);
                assert!(writes.is_empty() || is_known, "{option}: {entry:?}");
                assert!(guarded || !resources.contains(&"nodes".to_owned()), "{option}: {entry:?}");
            }
        }
    }
}

fn manifests(variant: &str) -> PathBuf {
    root().join("deploy/manifests").join(variant)
}

/// For those who apply without Helm: as it renders, less what is Helm's.
fn rendered(options: &[&str]) -> (String, String) {
    let files: Vec<_> = options.iter().map(|option| values(option)).collect();
    let mut args = vec!["--set", "namespace.create=true"];
    for file in &files {
        args.extend(["--values", file]);
    }
    let text = template(&args).unwrap();
    let is_of_helm = |line: &&str| {
        line.starts_with("# Source: ")
            || line.trim_start().starts_with("app.kubernetes.io/managed-by:")
    };
    let lines: Vec<_> = text.lines().filter(|line| !is_of_helm(line)).collect();
    let head = "# Rendered from deploy/chart by `make docs`.\n";
    let yaml = format!("{head}{}\n", lines.join("\n"));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": parse(&yaml) });
    (yaml, serde_json::to_string_pretty(&list).unwrap() + "\n")
}

#[test]
fn the_documentation_has_the_manifests_of_the_chart() {
    for (variant, options) in MANIFESTS {
        let (yaml, json) = rendered(options);
        for (name, current) in [("nix-csi.yaml", yaml), ("nix-csi.json", json)] {
            let file = manifests(variant).join(name);
            if std::env::var_os("NIX_CSI_RENEW_DOCS").is_some() {
                fs::write(&file, &current).unwrap();
            }
            let found = fs::read_to_string(&file).unwrap();
            assert!(found == current, "{} is not current: run `make docs`", file.display());
        }
    }
}
