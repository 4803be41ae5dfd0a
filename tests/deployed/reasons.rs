//! Why, for each entry: container, capability, mount, right.

/// What an entry is named by, and its reason.
pub(crate) type Reasons = &'static [(&'static str, &'static str)];

pub(crate) const CONTAINERS: Reasons = &[
    (
        "`nix-csi-node/nix-csi`",
        "mounts into other pods, makes sandboxes; what it gives up by itself is above",
    ),
    ("`nix-cache/nix-csi`", "sshd and nix-daemon become other users; builds nothing"),
    ("`nix-csi-node/node-driver-registrar`", "the driver's socket is root's"),
    (
        "`nix-csi-node/bootstrap`",
        "the image's programs into the store: [bootstrap.md](bootstrap.md)",
    ),
    ("`nix-cache/bootstrap`", "likewise"),
];

pub(crate) const CAPABILITIES: Reasons = &[
    ("`nix-cache/nix-csi` SYS_CHROOT", "sshd before login; without it no builds, no uploads"),
    ("`nix-cache/nix-csi` SETUID", "sshd's sessions run as `nix`; without it as SYS_CHROOT"),
    ("`nix-cache/nix-csi` SETGID", "likewise"),
    ("`nix-cache/nix-csi` KILL", "ends sessions and builds, which run as others"),
    ("`nix-cache/nix-csi` NET_BIND_SERVICE", "port 22, where the runtime leaves low ports to root"),
    ("`nix-cache/nix-csi` CHOWN", "the new store's group; without it it does not start"),
    ("`nix-csi-node/bootstrap` CHOWN", "the new store's group"),
    ("`nix-csi-node/bootstrap` DAC_OVERRIDE", "a volume's directory may be another user's"),
    ("`nix-csi-node/bootstrap` FOWNER", "and what is in it too"),
    ("`nix-csi-node/bootstrap` KILL", "ends Nix with itself"),
    ("`nix-cache/bootstrap` CHOWN", "as the node's"),
    ("`nix-cache/bootstrap` DAC_OVERRIDE", "as the node's"),
    ("`nix-cache/bootstrap` FOWNER", "as the node's"),
    ("`nix-cache/bootstrap` KILL", "as the node's"),
];

pub(crate) const MOUNTS: Reasons = &[
    ("`nix-csi-node/bootstrap` store", "programs are copied there"),
    ("`nix-csi-node/bootstrap` token", "the pod's; it reads none"),
    ("`nix-cache/bootstrap` store", "programs are copied there"),
    ("`nix-cache/bootstrap` token", "the pod's; it reads none"),
    (
        "`nix-csi-node/nix-csi` kubelet",
        "targets, which pods see; the CSI socket; the registration socket",
    ),
    ("`nix-csi-node/nix-csi` store", "the store, and views that outlive the container"),
    (
        "`nix-csi-node/nix-csi` run",
        "records of what is mounted, admin and daemon sockets, copies of keys",
    ),
    ("`nix-csi-node/nix-csi` tmp", "builds and sshd write there"),
    ("`nix-csi-node/nix-csi` sshd", "sshd's empty directory"),
    ("`nix-csi-node/nix-csi` nix-conf", "the operator's settings of Nix"),
    ("`nix-csi-node/nix-csi` token", "the rights below"),
    ("`nix-csi-node/nix-csi` keys", "[keys](keys.md): signing, for the cache, of its sshd"),
    ("`nix-csi-node/nix-csi` public", "the cache's host key, public signing keys"),
    ("`nix-csi-node/nix-csi` authorized", "who may build on it: the cache"),
    ("`nix-csi-node/nix-csi` keep", "what is kept warm"),
    ("`nix-csi-node/node-driver-registrar` sockets", "asks the driver who it is"),
    ("`nix-csi-node/node-driver-registrar` registration", "the registration socket"),
    ("`nix-cache/nix-csi` store", "the store"),
    ("`nix-cache/nix-csi` run", "sockets, the list of builders, copies of keys"),
    ("`nix-cache/nix-csi` tmp", "Nix and sshd write there"),
    ("`nix-cache/nix-csi` keys", "[keys](keys.md): its host key, for builders"),
    ("`nix-cache/nix-csi` public", "the builders' host key, public signing keys"),
    ("`nix-cache/nix-csi` authorized", "who may log in"),
    ("`nix-cache/nix-csi` nix-conf", "the operator's settings of Nix"),
    ("`nix-cache/nix-csi` token", "the rights below"),
];

pub(crate) const RIGHTS: Reasons = &[
    (
        "`nix-csi-node` pods",
        "a held call ends with its pod; user namespaces; RBAC knows no \"of my own node\"",
    ),
    ("`nix-csi-node` events of `events.k8s.io`", "what `kubectl describe pod` shows"),
    ("`nix-csi-node` csinodes of `storage.k8s.io`", "whether the kubelet still knows the driver"),
    ("`nix-csi-node` configmaps", "the policy, and no other ConfigMap"),
    (
        "`nix-csi-node` nodes",
        "takes the startup taint away; an admission policy leaves of it that taint of its own node",
    ),
    ("`nix-csi-cache` pods", "which nodes build"),
];
