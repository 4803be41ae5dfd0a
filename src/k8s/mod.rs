//! Kubernetes' side of a node. Watches and Events come with the kubelet's registration; what is
//! here is the vocabulary that the kubelet uses in CSI calls.

mod pod_info;

pub use pod_info::split_attributes;
