//! Services and names, which the rest leans on: the cluster's own, and no work of the driver's.

use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, Space, wait};

const BUSYBOX: &str = "/bin/busybox";

/// A pod of the subdomain `direct` that serves its own name.
fn server(name: &str, hostname: Option<&str>) -> Value {
    let script = format!(
        "busybox mkdir /www; echo {name} >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "server", "name": name } },
        "spec": {
            "hostname": hostname,
            "subdomain": "direct",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "localhost/busybox:e2e",
                "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", script],
            }],
        },
    })
}

fn service(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

/// Waits until the pod `plain` gets an answer at this address.
fn answer(space: &Space<'_>, address: &str) -> String {
    wait(&format!("an answer of {address}"), SOON, || {
        let url = format!("http://{address}/");
        // Debian's busybox crashes by its own `wget -T`.
        let get = ["timeout", "5", BUSYBOX, "wget", "-qO-", &url];
        space.ask(&[&["exec", "plain", "--", BUSYBOX], &get[..]].concat())
    })
}

/// What the DNS says to the pod `plain` about a full name.
fn look_up(space: &Space<'_>, name: &str) -> String {
    let script = format!("busybox nslookup {name} || true");
    space.kubectl(&["exec", "plain", "--", "/bin/sh", "-c", &script])
}

fn address_of(space: &Space<'_>, pod: &str) -> String {
    space.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

#[test]
fn a_service_and_a_pod_with_a_hostname_have_names_and_other_pods_have_none() {
    let cluster = Cluster::get();
    let space = cluster.space("services");
    let ports = json!([{ "port": 80, "targetPort": 8080 }]);
    space.apply(vec![
        server("named", Some("known")),
        server("plain", None),
        service("front", &json!({ "selector": { "name": "named" }, "ports": ports })),
        service("direct", &json!({ "selector": { "app": "server" }, "clusterIP": "None" })),
    ]);
    space.running("named");
    space.running("plain");

    assert_eq!(answer(&space, &format!("front.{}", space.name)), "named\n");
    let domain = format!("direct.{}.svc.cluster.local", space.name);
    assert_eq!(answer(&space, &format!("known.{domain}:8080")), "named\n");

    // The service knows both pods, but only the one that has a hostname has a name there.
    let pods = ["named", "plain"].map(|pod| format!("Address: {}\n", address_of(&space, pod)));
    wait("both pods in the headless service", SOON, || {
        let said = look_up(&space, &domain);
        pods.iter().all(|pod| said.contains(pod)).then_some(())
    });
    let known = look_up(&space, &format!("known.{domain}"));
    assert!(known.contains(&pods[0]) && !known.contains(&pods[1]), "{known}");
    for name in ["named", "plain"] {
        let said = look_up(&space, &format!("{name}.{domain}"));
        assert!(said.contains("NXDOMAIN") && !said.contains("Address: "), "{said}");
    }
}
