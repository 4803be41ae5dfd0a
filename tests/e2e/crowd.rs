//! Two thousand builders' pods that nobody runs: no scheduler knows theirs, so that the API server has what
//! this file says of them and no kubelet says otherwise. What the machines file must say of them is
//! computed here from what was asked for, with nothing of the driver's own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::{Instant, interval};

use crate::answerer::RANGE;
use crate::cluster::{LONG, POLL, Space};

pub(crate) const SIZE: u32 = 2000;
const AT_ONCE: usize = 24;

/// Annotations under `nix.csi.store/`, and the line's systems, jobs, speed, features and mandatory features;
/// of `None` there is no line.
type Says = (&'static [(&'static str, &'static str)], Option<[&'static str; 5]>);

const SAYS: [Says; 12] = [
    (&[], Some(["x86_64-linux", "3", "1", "-", "-"])),
    (
        &[("builder-max-jobs", "16"), ("builder-speed-factor", "2"), ("builder", "true")],
        Some(["x86_64-linux", "16", "2", "-", "-"]),
    ),
    (
        &[("builder-systems", "x86_64-linux,i686-linux"), ("builder-features", "kvm,big-parallel")],
        Some(["i686-linux,x86_64-linux", "3", "1", "big-parallel,kvm", "-"]),
    ),
    (&[("builder", "false"), ("builder-max-jobs", "4")], None),
    (
        &[("builder-mandatory-features", "gpu"), ("builder-features", "")],
        Some(["x86_64-linux", "3", "1", "-", "gpu"]),
    ),
    (&[("other", "builder")], Some(["x86_64-linux", "3", "1", "-", "-"])),
    (&[("builder-max-jobs", "many")], None),
    (&[("builder-max-jobs", "10000")], Some(["x86_64-linux", "10000", "1", "-", "-"])),
    (&[("builder-systems", "aarch64-linux")], Some(["aarch64-linux", "3", "1", "-", "-"])),
    (&[("builder-features", "kvm - - -\nssh-ng://nix@evil - - 9 9 - - -")], None),
    (&[("builder-features", "a,b,a")], Some(["x86_64-linux", "3", "1", "a,b", "-"])),
    (&[("builder-speed-factor", "7")], Some(["x86_64-linux", "3", "7", "-", "-"])),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    /// Its number in the range of addresses.
    host: u32,
    is_ready: bool,
    /// Which of [`SAYS`].
    says: usize,
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Create,
    Annotate,
    Status,
    Unlabel,
    Delete,
}

pub(crate) struct Crowd {
    runtime: Runtime,
    pods: Api<Pod>,
    members: BTreeMap<u32, Member>,
    /// Calls that the API server has carried out.
    pub(crate) changes: u64,
}

fn name(id: u32) -> String {
    format!("b-{id:05}")
}

fn ip(host: u32) -> String {
    format!("{RANGE}.{}.{}", host / 256, host % 256)
}

fn annotations(says: usize) -> BTreeMap<String, Value> {
    let key = |key: &str| format!("nix.csi.store/{key}");
    // What it said before goes.
    let all = SAYS.iter().flat_map(|(says, _)| *says).map(|(k, _)| (key(k), Value::Null));
    all.chain(SAYS[says].0.iter().map(|(k, value)| (key(k), json!(value)))).collect()
}

impl Member {
    fn pod(self, id: u32) -> Pod {
        let mut annotations = annotations(self.says);
        annotations.retain(|_, value| !value.is_null());
        let container = json!({ "name": "main", "image": "localhost/empty:e2e" });
        let pod = json!({
            "metadata": {
                "name": name(id), "labels": { "app": "nix-csi-node" }, "annotations": annotations,
            },
            "spec": {
                "schedulerName": "nobody",
                "automountServiceAccountToken": false,
                "containers": [container],
            },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn status(self) -> Value {
        let (ip, ready) = (ip(self.host), if self.is_ready { "True" } else { "False" });
        json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": ready }],
        } })
    }
}

impl Crowd {
    pub(crate) fn new(space: &Space<'_>) -> Self {
        let runtime = Runtime::new().unwrap();
        let file = space.cluster.dir().join("admin.kubeconfig");
        let client = async {
            let (file, options) = (Kubeconfig::read_from(file), KubeConfigOptions::default());
            let config = Config::from_custom_kubeconfig(file.unwrap(), &options).await;
            let mut config = config.unwrap();
            // Of an API server that is being restarted.
            config.read_timeout = Some(Duration::from_secs(10));
            Client::try_from(config).unwrap()
        };
        let pods = Api::namespaced(runtime.block_on(client), &space.name);
        Self { runtime, pods, members: BTreeMap::new(), changes: 0 }
    }

    /// New ones, not ready and without an address.
    pub(crate) fn create(&mut self, ids: impl Iterator<Item = u32>) {
        let new =
            |id| (id, Member { host: 256 + id, is_ready: false, says: id as usize % SAYS.len() });
        let ids: Vec<_> = ids.collect();
        self.members.extend(ids.iter().copied().map(new));
        self.call(Call::Create, &ids);
    }

    pub(crate) fn delete(&mut self, which: impl Fn(u32) -> bool) {
        self.remove(Call::Delete, which);
    }

    /// They stay pods, and are ready, but the cache's selector finds them no more. Of one that is deleted a
    /// watch hears first that it is about to go; of these it does not.
    pub(crate) fn unlabel(&mut self, which: impl Fn(u32) -> bool) {
        self.remove(Call::Unlabel, which);
    }

    fn remove(&mut self, call: Call, which: impl Fn(u32) -> bool) {
        let ids = self.ids(which);
        self.call(call, &ids);
        self.members.retain(|id, _| !ids.contains(id));
    }

    pub(crate) fn set_ready(&mut self, is_ready: bool, which: impl Fn(u32) -> bool) {
        self.change(Call::Status, which, |_, member| member.is_ready = is_ready);
    }

    /// Gives them other addresses.
    pub(crate) fn relocate(&mut self, which: impl Fn(u32) -> bool) {
        self.change(Call::Status, which, |_, member| member.host += 8 * 256);
    }

    /// Gives them the address that the next one began with.
    pub(crate) fn share_address(&mut self, which: impl Fn(u32) -> bool) {
        self.change(Call::Status, which, |id, member| member.host = 256 + id + 1);
    }

    /// Lets them say the next of [`SAYS`].
    pub(crate) fn annotate(&mut self, which: impl Fn(u32) -> bool) {
        self.change(Call::Annotate, which, |_, m| m.says = (m.says + 1) % SAYS.len());
    }

    fn ids(&self, which: impl Fn(u32) -> bool) -> Vec<u32> {
        self.members.keys().copied().filter(|id| which(*id)).collect()
    }

    fn change(
        &mut self,
        call: Call,
        which: impl Fn(u32) -> bool,
        change: impl Fn(u32, &mut Member),
    ) {
        let ids = self.ids(which);
        for id in &ids {
            change(*id, self.members.get_mut(id).unwrap());
        }
        self.call(call, &ids);
    }

    fn call(&mut self, call: Call, ids: &[u32]) {
        let calls = ids.iter().map(|id| carry_out(&self.pods, call, *id, self.members[id]));
        self.runtime.block_on(stream::iter(calls).for_each_concurrent(AT_ONCE, |call| call));
        self.changes += ids.len() as u64;
    }

    /// The machines file, if none but the hosts of `mute` are on the bench; by address, and of two pods of
    /// one address the first by name.
    pub(crate) fn machines(&self, key: &str, host_key: &str, mute: impl Fn(u32) -> bool) -> String {
        let mut lines = BTreeMap::new();
        for member in self.members.values().filter(|member| member.is_ready && !mute(member.host)) {
            if let Some([systems, jobs, speed, features, mandatory]) = SAYS[member.says].1 {
                let uri = format!("ssh-ng://nix@{}", ip(member.host));
                let line = format!(
                    "{uri} {systems} {key} {jobs} {speed} {features} {mandatory} {host_key}\n"
                );
                lines.entry(member.host).or_insert(line);
            }
        }
        lines.into_values().collect()
    }

    pub(crate) fn len(&self) -> u64 {
        self.members.len() as u64
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

/// Until the API server has done it, which may be away for a while: then nobody knows whether a call that
/// failed was carried out.
async fn carry_out(pods: &Api<Pod>, call: Call, id: u32, member: Member) {
    let (name, end, mut pause) = (name(id), Instant::now() + LONG, interval(POLL));
    let params = PatchParams::default();
    loop {
        pause.tick().await;
        let done = match call {
            Call::Create => pods.create(&PostParams::default(), &member.pod(id)).await.map(drop),
            Call::Delete => pods.delete(&name, &DeleteParams::default()).await.map(drop),
            Call::Unlabel => {
                let label = json!({ "metadata": { "labels": { "app": null } } });
                pods.patch(&name, &params, &Patch::Merge(label)).await.map(drop)
            }
            Call::Status => {
                pods.patch_status(&name, &params, &Patch::Merge(member.status())).await.map(drop)
            }
            Call::Annotate => {
                let annotations =
                    json!({ "metadata": { "annotations": annotations(member.says) } });
                pods.patch(&name, &params, &Patch::Merge(annotations)).await.map(drop)
            }
        };
        let Err(error) = done else { return };
        let is_done = match (&error, call) {
            (Error::Api(status), Call::Create) => status.code == 409,
            (Error::Api(status), Call::Delete) => status.code == 404,
            _ => false,
        };
        if is_done {
            return;
        }
        assert!(Instant::now() < end, "{call:?} of {name}: {error}");
    }
}
