//! Service-account tokens, as the kubelet asks the API server for them, and a program of the operator's that
//! exchanges them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, in_driver, wait_until};
use crate::leftovers::nothing_left;
use crate::programs::{package, pod};

const AUDIENCE: &str = "cache.example.org";
const ROLLOUT: [&str; 6] =
    ["-n", "nix-csi", "rollout", "status", "daemonset/nix-csi-node", "--timeout=120s"];

/// Notes what it is asked, and knows one account.
const PROGRAM: &str = r#"#!/bin/sh
read -r request
echo "$request" > /tmp/exchange-request
case $request in
  *'"serviceAccount":"default"'*) echo '{"netrc":"machine cache.example.org login ci password hunter2hunter2"}' ;;
  *) echo "nobody knows this account" >&2; exit 3 ;;
esac
"#;

/// Without all that again at its end.
struct Exchanging<'a>(&'a Cluster);

impl<'a> Exchanging<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        cluster.apply(&[json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "exchange", "namespace": "nix-csi" },
            "data": { "exchange": PROGRAM },
        })]);
        let this = Self(cluster);
        let patch = json!({ "spec": { "template": { "spec": {
            "containers": [{
                "name": "nix-csi",
                "env": [{ "name": "NIX_CSI_TOKEN_EXCHANGE", "value": "/etc/nix-csi/exchange/exchange" }],
                "volumeMounts": [{ "name": "exchange", "mountPath": "/etc/nix-csi/exchange", "readOnly": true }],
            }],
            "volumes": [{ "name": "exchange", "configMap": { "name": "exchange", "defaultMode": 0o500 } }],
        }}}});
        let patch = patch.to_string();
        cluster.kubectl(&["-n", "nix-csi", "patch", "daemonset", "nix-csi-node", "-p", &patch]);
        cluster.kubectl(&ROLLOUT);
        this
    }

    /// `None`: no tokens are asked for.
    fn tokens(&self, among_secrets: Option<bool>) {
        let requests = among_secrets.map(|_| json!([{ "audience": AUDIENCE }]));
        let spec =
            json!({ "tokenRequests": requests, "serviceAccountTokenInSecrets": among_secrets });
        let patch = json!({ "spec": spec }).to_string();
        self.0.kubectl(&["patch", "csidriver", "nix.csi.store", "--type=merge", "-p", &patch]);
    }

    fn on_node(&self, script: &str) -> String {
        self.0.kubectl(&in_driver(&["sh", "-euc", script]))
    }

    /// What the program was asked last.
    fn asked(&self) -> Value {
        serde_json::from_str(&self.on_node("cat /tmp/exchange-request; rm /tmp/exchange-request"))
            .unwrap()
    }
}

impl Drop for Exchanging<'_> {
    fn drop(&mut self) {
        self.tokens(None);
        self.0.kubectl(&["-n", "nix-csi", "rollout", "undo", "daemonset/nix-csi-node"]);
        self.0.kubectl(&ROLLOUT);
        self.0.kubectl(&["-n", "nix-csi", "delete", "configmap", "exchange"]);
    }
}

#[test]
fn a_pods_token_reaches_the_operators_program_alone() {
    let cluster = Cluster::get();
    let space = cluster.space("exchange");
    let exchanging = Exchanging::start(&cluster);
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "stranger" },
    });
    let strangers = |name: &str| {
        let mut pod = pod(name, ("nixExpr", &package("strangers", "")), "serve");
        pod["spec"]["serviceAccountName"] = json!("stranger");
        pod
    };
    // Among the secrets, as newer kubelets can; in the volume's context, as all can.
    for (name, among_secrets) in [("secret", true), ("context", false)] {
        exchanging.tokens(Some(among_secrets));
        space.apply(vec![pod(name, ("nixExpr", &package(name, "")), "serve")]);
        space.running(name);
        let asked = exchanging.asked();
        let of = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (of("namespace"), of("serviceAccount"), of("pod")),
            (space.name.clone(), "default".into(), name.into())
        );
        let token = asked["tokens"][AUDIENCE]["token"].as_str().unwrap();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["aud"], json!([AUDIENCE]));
        assert_eq!(claims["sub"], format!("system:serviceaccount:{}:default", space.name));
        assert_eq!(claims["kubernetes.io"]["pod"]["name"], name);
        // Neither it nor what it was exchanged for stays.
        let signature = token.rsplit('.').next().unwrap();
        let found = exchanging.on_node(&format!(
            "grep -rl -e {signature} -e hunter2hunter2 /run/nix-csi /nix/var/nix-csi /tmp || true"
        ));
        assert_eq!(found.trim(), "", "{name}");
        let log =
            cluster.kubectl(&["-n", "nix-csi", "logs", "daemonset/nix-csi-node", "-c", "nix-csi"]);
        assert!(!log.contains(signature) && !log.contains("hunter2hunter2"), "{name}");
    }
    space.apply(vec![account, strangers("refused")]);
    wait_until("the program's word", SOON, || {
        space.why("refused").contains("failed with 3: nobody knows this account")
    });
    drop(exchanging);
    // Nobody is asked for a token any more.
    space.running("refused");
    drop(space);
    nothing_left(&cluster);
}
