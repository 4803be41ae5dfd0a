//! The node's part in a Kubernetes cluster, if it has one.

use std::sync::Arc;

use super::{NodeError, fail};
use crate::actors::node::start_registrar;
use crate::actors::policy::{PolicyConfig, PolicySource};
use crate::actors::registrar::{RegistrarConfig, RegistrarHandle};
use crate::config::NodeConfig;
use crate::grpc::RegistrationSocket;
use crate::health::Health;
use crate::k8s::{Api, RealApi};

/// Part of the health that waits for the kubelet.
pub(super) const REGISTRATION: &str = "registration";

/// Without a node's name there is nothing to ask an API server about.
pub(super) async fn open_api(config: &NodeConfig) -> Result<Option<Arc<dyn Api>>, NodeError> {
    let Some(node) = &config.cluster.node_name else {
        return Ok(None);
    };
    let kubeconfig = config.cluster.kubeconfig.as_deref();
    let api = RealApi::open(node, &config.driver_name, kubeconfig).await;
    let api = api.map_err(|e| fail("--node-name")(&e))?;
    Ok(Some(Arc::new(api)))
}

/// Where the policy comes from, if there may be one.
pub(super) fn policy(
    config: &NodeConfig,
    api: Option<&Arc<dyn Api>>,
    health: &Health,
) -> Option<PolicyConfig> {
    let settings = &config.policy;
    let source = match (&settings.policy_config_map, api, &settings.policy_file) {
        (Some((namespace, name)), Some(api), _) => PolicySource::ConfigMap {
            namespace: namespace.clone(),
            name: name.clone(),
            api: api.clone(),
        },
        (_, _, Some(file)) => PolicySource::File(file.clone()),
        _ => return None,
    };
    let last_good = config.process.state_dir.join("policy.yaml");
    let required = settings.policy_required;
    Some(PolicyConfig { source, required, last_good, health: health.clone() })
}

/// Offers the driver to the kubelet; to be called when the CSI socket is served.
pub(super) fn register(
    config: &NodeConfig,
    api: Option<Arc<dyn Api>>,
    health: &Health,
) -> Option<RegistrarHandle> {
    let dir = config.cluster.registration_dir.as_deref()?;
    let (driver, csi) = (&config.driver_name, config.endpoint.path());
    let endpoint = config.cluster.kubelet_endpoint.as_ref().map_or(csi, |e| e.path());
    let doorway = Arc::new(RegistrationSocket::new(dir, driver, csi, endpoint));
    let taint = config.cluster.startup_taint.then(|| format!("{driver}/agent-not-ready"));
    let health = health.clone();
    Some(start_registrar(RegistrarConfig { part: REGISTRATION, health, doorway, api, taint }))
}
