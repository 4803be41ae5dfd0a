//! Expressions that need nothing but the busybox of the driver's image, and pods that run what they
//! build in an image that has nothing.

use serde_json::{Value, json};

pub(crate) const DRIVER: &str = "nix.csi.store";
const EMPTY: &str = "localhost/empty:e2e";

/// An expression for a package with `bin/hello`, which says its name and shows all it sees of the
/// store, and `bin/serve`, which runs until it is told to end. `first` are the builder's own lines.
pub(crate) fn package(name: &str, first: &str) -> String {
    format!(
        r#"let
  run = name: script: derivation {{
    inherit name; system = builtins.currentSystem; builder = "/bin/busybox";
    args = [ "sh" "-euc" script ];
  }};
  busybox = run "busybox" ''
    /bin/busybox mkdir -p $out/bin
    /bin/busybox cp /bin/busybox $out/bin/busybox
  '';
in run "{name}" ''
  {first}
  b=${{busybox}}/bin/busybox
  /bin/busybox mkdir -p $out/bin $out/share
  echo "of {name}" > $out/share/text
  printf '#!%s sh\necho "hello from {name}"; %s ls /nix/store\n' "$b" "$b" > $out/bin/hello
  printf '#!%s sh\ntrap "exit 0" TERM; %s sleep 100000 & wait\n' "$b" "$b" > $out/bin/serve
  /bin/busybox chmod +x $out/bin/hello $out/bin/serve
''"#
    )
}

/// A package whose build takes so many seconds and says a line a second.
pub(crate) fn slow_package(name: &str, seconds: u32) -> String {
    let lines = "for i in $(/bin/busybox seq SECONDS); do echo line $i; /bin/busybox sleep 1; done";
    package(name, &lines.replace("SECONDS", &seconds.to_string()))
}

/// A pod that runs a program of the volume `nix`.
pub(crate) fn pod(name: &str, (key, value): (&str, &str), program: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "e2e" } },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": EMPTY,
                "imagePullPolicy": "Never",
                "command": [format!("/nix/var/result/bin/{program}")],
                "volumeMounts": [{ "name": "nix", "mountPath": "/nix" }],
            }],
            "volumes": [{
                "name": "nix",
                "csi": { "driver": DRIVER, "readOnly": true, "volumeAttributes": { key: value } },
            }],
        },
    })
}

/// The same pod with a volume that it may write to.
pub(crate) fn writable(mut pod: Value) -> Value {
    pod["spec"]["volumes"][0]["csi"]["readOnly"] = Value::from(false);
    pod
}

/// A Deployment of such pods.
pub(crate) fn deployment(name: &str, replicas: usize, source: (&str, &str)) -> Value {
    let mut spec = pod(name, source, "serve")["spec"].take();
    spec["restartPolicy"] = Value::from("Always");
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": spec },
        },
    })
}
