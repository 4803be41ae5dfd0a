//! From manifests to rows.

use serde_json::Value;

use super::manifests::{list, text};
use super::reasons;

/// One entry; `named` is what its reason goes by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    named: Vec<String>,
    facts: Vec<String>,
}

impl Row {
    pub(crate) fn key(&self) -> String {
        self.named.join(" ")
    }
}

pub(crate) struct Table {
    title: &'static str,
    named: &'static [&'static str],
    facts: &'static [&'static str],
    pub(crate) rows: fn(&[Value]) -> Vec<Row>,
    pub(crate) reasons: reasons::Reasons,
}

pub(crate) const ALL: &[&Table] = &[
    &Table {
        title: "Containers",
        named: &["container"],
        facts: &[
            "runs as",
            "privileged",
            "new privileges",
            "seccomp",
            "root file system",
            "namespaces of the host",
        ],
        rows: containers,
        reasons: reasons::CONTAINERS,
    },
    &Table {
        title: "Capabilities of what is not privileged",
        named: &["container", "capability"],
        facts: &[],
        rows: capabilities,
        reasons: reasons::CAPABILITIES,
    },
    &Table {
        title: "Mounts",
        named: &["container", "mount"],
        facts: &["of", "at", "access", "propagation"],
        rows: mounts,
        reasons: reasons::MOUNTS,
    },
    &Table {
        title: "Rights at the API server",
        named: &["account", "resource"],
        facts: &["names", "verbs", "where"],
        rows: rights,
        reasons: reasons::RIGHTS,
    },
];

impl Table {
    pub(crate) fn why(&self, row: &Row) -> Option<&'static str> {
        let key = row.key();
        self.reasons.iter().find(|(of, _)| *of == key).map(|(_, why)| *why)
    }

    pub(crate) fn markdown(&self, rows: &[(Row, String)]) -> String {
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | ").replace("  ", " "));
        let mut text = format!("### {}\n\n", self.title);
        let heads = [self.named, self.facts, &["option", "why"]].concat();
        text += &line(heads.clone());
        text += &line(vec!["---"; heads.len()]);
        for (row, option) in rows {
            let cells = row.named.iter().chain(&row.facts).map(String::as_str);
            let last = [&**option, self.why(row).unwrap_or("?")];
            text += &line(cells.chain(last).collect());
        }
        text + "\n"
    }
}

fn code(word: &str) -> String {
    format!("`{word}`")
}

fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// Workload, its pod's spec, and one of its containers.
fn each_container(objects: &[Value]) -> Vec<(String, &Value, &Value)> {
    let mut found = Vec::new();
    for object in objects {
        let Some(pod) = object.pointer("/spec/template/spec") else { continue };
        for container in list(pod, "/initContainers").iter().chain(list(pod, "/containers")) {
            let (workload, name) = (text(object, "/metadata/name"), text(container, "/name"));
            found.push((code(&format!("{workload}/{name}")), pod, container));
        }
    }
    found
}

fn containers(objects: &[Value]) -> Vec<Row> {
    let row = |(name, pod, container): (String, &Value, &Value)| {
        let context = &container["securityContext"];
        let of_either = |field: &str| {
            let pointer = format!("/securityContext/{field}");
            [container, pod].iter().find_map(|part| part.pointer(&pointer).cloned())
        };
        let user = of_either("runAsUser").map_or_else(
            || "root, as the image".to_owned(),
            |user| if user == 0 { "root".to_owned() } else { user.to_string() },
        );
        let privileged = is_true(context, "/privileged");
        let gains = privileged || context["allowPrivilegeEscalation"] != false;
        let seccomp = of_either("seccompProfile").map(|p| text(&p, "/type").to_owned());
        let seccomp = match seccomp {
            _ if privileged => "none".to_owned(),
            Some(kind) => kind,
            None => "as the kubelet's default".to_owned(),
        };
        let read_only = is_true(context, "/readOnlyRootFilesystem");
        let shared: Vec<_> = ["hostNetwork", "hostPID", "hostIPC"]
            .into_iter()
            .filter(|field| is_true(pod, &format!("/{field}")))
            .collect();
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let namespaces = if shared.is_empty() { "none".to_owned() } else { shared.join(", ") };
        let facts = vec![
            user,
            yes(privileged),
            if gains { "may come" } else { "never" }.to_owned(),
            seccomp,
            if read_only { "read-only" } else { "writable" }.to_owned(),
            namespaces,
        ];
        Row { named: vec![name], facts }
    };
    each_container(objects).into_iter().map(row).collect()
}

fn capabilities(objects: &[Value]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, _, container) in each_container(objects) {
        let context = &container["securityContext"];
        if is_true(context, "/privileged") {
            continue;
        }
        let dropped = list(context, "/capabilities/drop");
        assert!(dropped.contains(&"ALL".into()), "{name} drops not all capabilities: {dropped:?}");
        for capability in list(context, "/capabilities/add") {
            let capability = capability.as_str().unwrap().to_owned();
            rows.push(Row { named: vec![name.clone(), capability], facts: vec![] });
        }
    }
    rows
}

fn mounts(objects: &[Value]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (container_name, pod, container) in each_container(objects) {
        for mount in list(container, "/volumeMounts") {
            let name = text(mount, "/name");
            assert_eq!(text(mount, "/subPath"), "", "a subPath has no column");
            let volume = list(pod, "/volumes").iter().find(|volume| volume["name"] == name);
            let own = || "claim, of the workload's own".to_owned();
            let of = volume.map_or_else(own, |volume| source(volume, pod));
            let access = if is_true(mount, "/readOnly") { "read" } else { "write" };
            let propagation = text(mount, "/mountPropagation");
            let facts = [&of, &code(text(mount, "/mountPath")), access, propagation];
            let facts = facts.iter().map(|fact| (*fact).to_owned()).collect();
            rows.push(Row { named: vec![container_name.clone(), name.to_owned()], facts });
        }
        // What the API server adds.
        if pod["automountServiceAccountToken"] != false {
            let at = code("/var/run/secrets/kubernetes.io/serviceaccount");
            let facts = vec![token_of(pod), at, "read".to_owned(), String::new()];
            rows.push(Row { named: vec![container_name, "token".to_owned()], facts });
        }
    }
    rows
}

fn token_of(pod: &Value) -> String {
    format!("token of {}", code(text(pod, "/serviceAccountName")))
}

/// What a volume shows.
fn source(volume: &Value, pod: &Value) -> String {
    if let Some(projected) = volume.get("projected") {
        let maps: Vec<_> =
            list(projected, "/sources").iter().filter_map(|of| of.get("configMap")).collect();
        if maps.len() == list(projected, "/sources").len() {
            return maps
                .into_iter()
                .map(|of| named("configMap", of, "/name"))
                .collect::<Vec<_>>()
                .join("; ");
        }
        let known = SERVICE_ACCOUNT.map(|(path, of)| (path, of.to_owned()));
        assert_eq!(files_of(projected), known, "what {volume} is has no word here");
        return token_of(pod);
    }
    let kinds = [
        ("hostPath", "/path"),
        ("secret", "/secretName"),
        ("configMap", "/name"),
        ("emptyDir", "/medium"),
    ];
    let mut found = kinds.iter().filter_map(|(kind, name)| Some((kind, volume.get(kind)?, name)));
    let Some((kind, of, name)) = found.next() else {
        panic!("what {volume} is has no word here");
    };
    named(kind, of, name)
}

fn named(kind: &str, of: &Value, name: &str) -> String {
    let optional = if is_true(of, "/optional") { ", if there is one" } else { "" };
    match text(of, name) {
        "" => kind.to_owned(),
        "Memory" => format!("{kind}, in memory"),
        name => format!("{kind} {}{optional}", code(name)),
    }
}

/// What the API server mounts into a pod that has a token, and clients in it look for: its places, and of what.
const SERVICE_ACCOUNT: [(&str, &str); 3] = [
    ("token", "token"),
    ("ca.crt", "kube-root-ca.crt ca.crt"),
    ("namespace", "metadata.namespace"),
];

fn files_of(projected: &Value) -> Vec<(&str, String)> {
    let mut files = Vec::new();
    for source in list(projected, "/sources") {
        if let Some(token) = source.get("serviceAccountToken") {
            // One for the API server, which is renewed.
            assert!(token.get("audience").is_none() && token["expirationSeconds"] == 3607);
            files.push((text(token, "/path"), "token".to_owned()));
        }
        for item in list(source, "/configMap/items") {
            let of = format!("{} {}", text(source, "/configMap/name"), text(item, "/key"));
            files.push((text(item, "/path"), of));
        }
        for item in list(source, "/downwardAPI/items") {
            files.push((text(item, "/path"), text(item, "/fieldRef/fieldPath").to_owned()));
        }
    }
    files
}

/// Each rule of each role that is bound to a service account.
fn rights(objects: &[Value]) -> Vec<Row> {
    let mut rows = Vec::new();
    for binding in objects.iter().filter(|object| text(object, "/kind").ends_with("RoleBinding")) {
        let of_cluster = text(binding, "/kind") == "ClusterRoleBinding";
        let role = objects.iter().find(|role| {
            role["kind"] == binding["roleRef"]["kind"]
                && text(role, "/metadata/name") == text(binding, "/roleRef/name")
                && (of_cluster
                    || role["kind"] == "ClusterRole"
                    || role["metadata"]["namespace"] == binding["metadata"]["namespace"])
        });
        let role = role.unwrap_or_else(|| panic!("{binding} binds no role of ours"));
        let place = if of_cluster { "cluster" } else { text(binding, "/metadata/namespace") };
        for subject in list(binding, "/subjects") {
            assert_eq!(text(subject, "/kind"), "ServiceAccount");
            for rule in list(role, "/rules") {
                rows.push(right(text(subject, "/name"), place, rule));
            }
        }
    }
    rows
}

fn right(account: &str, place: &str, rule: &Value) -> Row {
    let words = |field: &str| {
        let all = list(rule, &format!("/{field}")).iter().map(|word| word.as_str().unwrap());
        all.collect::<Vec<_>>().join(", ")
    };
    assert!(rule.get("nonResourceURLs").is_none(), "{rule} has no column");
    let group = words("apiGroups");
    let resources = words("resources");
    let resources =
        if group.is_empty() { resources } else { format!("{resources} of {}", code(&group)) };
    let names = match words("resourceNames") {
        all if all.is_empty() => "all".to_owned(),
        names => code(&names),
    };
    let place = if place == "cluster" { place.to_owned() } else { code(place) };
    let facts = vec![names, words("verbs"), place];
    Row { named: vec![code(account), resources], facts }
}
