//! A cache, a node that signs what it builds, and one that does not.

use std::fs;
use std::path::{Path, PathBuf};

use nix_csi::grpc::client;
use nix_csi::grpc::proto::registration::RegistrationStatus;
use nix_csi::grpc::proto::registration::registration_client::RegistrationClient;

use crate::lab::{CacheRole, Lab, Network, Node, Volume, attrs, until};

/// What happens in hours happens in seconds.
const HASTY: &[&str] = &[
    "--gc-older-than",
    "4s",
    "--gc-grace",
    "0s",
    "--gc-interval",
    "5s",
    "--gc-look-interval",
    "1s",
    "--keep-idle",
    "3s",
    "--probe-memory",
    "1s",
    "--eval-slots",
    "2",
    "--build-slots",
    "2",
];
/// So that what else is on this machine's disk does not matter.
const WATERMARKS: &[&str] = &["--gc-high-watermark", "98", "--gc-low-watermark", "96"];
/// Namespace whose pods may not bring expressions.
pub(crate) const STRICT: &str = "strict";
const POLICY: &str = "preset: open\nnamespaces: {strict: {nixExpr: false}}\n";

pub(crate) struct Machines {
    _network: Network,
    pub(crate) cache: Lab,
    pub(crate) a: Lab,
    pub(crate) b: Lab,
}

/// The key that counts.
pub(crate) struct Keys {
    secret: PathBuf,
    pub(crate) public: String,
}

impl Machines {
    pub(crate) fn new() -> Result<Self, String> {
        let network = Network::new()?;
        let [cache, a, b] = [1, 2, 3].map(|n| network.host(n));
        Ok(Self { _network: network, cache: cache?, a: a?, b: b? })
    }

    pub(crate) fn keys(&self) -> Keys {
        let (secret, public) = self.cache.signing_key("lab");
        Keys { secret, public }
    }

    /// It builds for others itself.
    pub(crate) fn cache_role(&self, keys: &Keys) -> CacheRole<'_> {
        let secret = keys.secret.to_str().unwrap();
        let signing = ["--trusted-public-key", &keys.public, "--signing-key", secret];
        let own = ["--local-jobs", "2", "--gc-interval", "5s"];
        self.cache.cache_role(&[&signing[..], &own, WATERMARKS].concat())
    }

    /// Closures of some megabytes that the cache has and nobody else.
    pub(crate) fn cached(&self, keys: &Keys, count: usize) -> Vec<String> {
        let sign = ["--option", "secret-key-files", keys.secret.to_str().unwrap()];
        let size = ["--arg", "paths", "12", "--arg", "bytes", "3000000"];
        let seeds = (0..count).map(|n| format!("cached-{n}"));
        seeds
            .map(|seed| {
                self.cache.closure(&[&sign[..], &size, &["--argstr", "seed", &seed]].concat())
            })
            .collect()
    }

    /// Who may log in at the cache, as its options.
    fn client(&self, lab: &Lab, name: &str, role: &CacheRole<'_>, keys: &Keys) -> Vec<String> {
        let key = lab.ssh_key(name);
        self.cache.authorize(name, &key);
        let known = role.known_hosts(&Network::address(1), lab.path("known_hosts"));
        let store = format!("ssh-ng://nix@{}", Network::address(1));
        let options = [
            ("--ssh-key", key.to_str().unwrap()),
            ("--ssh-known-hosts", known.to_str().unwrap()),
            ("--cache", &store),
            ("--trusted-public-key", &keys.public),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
    }

    /// It signs, has a policy, keeps a closure warm, and a kubelet knows it.
    pub(crate) async fn node_a(&self, role: &CacheRole<'_>, keys: &Keys, keep: &str) -> Node {
        let lab = &self.a;
        let client = self.client(lab, "a", role, keys);
        let secret = lab.path("nodes.secret");
        fs::copy(&keys.secret, &secret).unwrap();
        let (policy, registry) = (lab.path("policy.yaml"), lab.path("plugins_registry"));
        fs::write(&policy, POLICY).unwrap();
        fs::create_dir(&registry).unwrap();
        let flakes = self.a.flake("flake");
        self.configure("http-connections = 5\n");
        let conf = self.conf();
        let own = [
            ["--signing-key", secret.to_str().unwrap()],
            ["--policy-file", policy.to_str().unwrap()],
            ["--registration-dir", registry.to_str().unwrap()],
            ["--eval-path", flakes.to_str().unwrap()],
            ["--nix-conf", conf.to_str().unwrap()],
            ["--keep", keep],
            ["--keep", "/nix/store/00000000000000000000000000000000-missing"],
        ];
        let client: Vec<_> = client.iter().map(String::as_str).collect();
        let all = [&client[..], HASTY, WATERMARKS, own.as_flattened(), &["--allow-local-flakes"]]
            .concat();
        let node = lab.starting_node(&all);
        registered(&registry).await;
        node.ready().await;
        node
    }

    fn conf(&self) -> PathBuf {
        self.a.path("nix.conf")
    }

    /// Changes the settings of node A's Nix.
    pub(crate) fn configure(&self, text: &str) {
        let staged = self.a.path("staged.conf");
        fs::write(&staged, text).unwrap();
        fs::rename(staged, self.conf()).unwrap();
    }

    /// The cache takes nothing of it: it signs nothing.
    pub(crate) async fn node_b(&self, client: &[String], more: &[&str]) -> Node {
        let client: Vec<_> = client.iter().map(String::as_str).collect();
        let own = ["--upload-attempts", "1"];
        self.b.node(&[&client[..], HASTY, WATERMARKS, &own, more].concat()).await
    }

    pub(crate) fn client_b(&self, role: &CacheRole<'_>, keys: &Keys) -> Vec<String> {
        self.client(&self.b, "b", role, keys)
    }
}

/// The kubelet's word.
async fn registered(registry: &Path) {
    let socket = registry.join("nix.csi.store@reg.sock");
    until("the registration socket", async || client::connect(&socket).await.is_ok()).await;
    let mut kubelet = RegistrationClient::new(client::connect(&socket).await.unwrap());
    let status = RegistrationStatus { plugin_registered: true, error: String::new() };
    kubelet.notify_registration_status(status).await.unwrap();
}

/// A volume as the kubelet asks for it.
pub(crate) fn of_pod(lab: &Lab, namespace: &str, name: &str, source: (&str, &str)) -> Volume {
    let mut volume = lab.volume(name, &[source]);
    let uid = format!("uid-{name}");
    let dir = lab.path("kubelet/pods").join(&uid).join("volumes/kubernetes.io~csi/nix");
    fs::create_dir_all(&dir).unwrap();
    volume.target = dir.join("mount");
    volume.attributes.extend(attrs(&[
        ("csi.storage.k8s.io/pod.name", name),
        ("csi.storage.k8s.io/pod.namespace", namespace),
        ("csi.storage.k8s.io/pod.uid", &uid),
        ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ]));
    volume
}

/// An expression whose build takes so many seconds.
pub(crate) fn build(name: &str, seconds: u32, end: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; args = [ \"-c\" \"sleep {seconds}; head -c 200000 /dev/urandom > $out; {end}\" ]; }}"
    )
}
