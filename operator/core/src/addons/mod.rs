//! The add-ons of a target cluster: their objects, the action for each object, the RBAC rules that Keyplane needs, and
//! the condition `AddonsReady`.
//!
//! The objects of kubeadm's add-ons are the same as in kubeadm; the oracle test compares them.

mod core_dns;
mod flannel;
mod judgement;
mod kube_proxy;
mod rights;
mod status;

use keyplane_crds::Layout;
use serde_json::{Value, json};

pub use judgement::{ObjectAction, action_for, is_ours, is_unmanaged};
pub(crate) use rights::{Rule, rights};
pub use status::{AddonState, Health, WorkloadRollout, health};

use crate::model::{Cluster, Version};
use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::target_objects::TargetObject;

/// The namespace of kubeadm's add-ons.
const KUBE_SYSTEM: &str = "kube-system";

/// An add-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Addon {
    /// kube-proxy, which implements Services on each node.
    KubeProxy,
    /// Flannel, the Pod network.
    Flannel,
    /// CoreDNS, the cluster DNS.
    CoreDns,
}

impl Addon {
    /// All add-ons, in the order in which they are applied: CoreDNS needs the others.
    pub const ALL: [Self; 3] = [Self::KubeProxy, Self::Flannel, Self::CoreDns];

    /// The display name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::Flannel => "Flannel",
            Self::CoreDns => "CoreDNS",
        }
    }

    /// Returns whether the spec enables the add-on.
    #[must_use]
    pub fn is_enabled(self, cluster: &Cluster) -> bool {
        let addons = &cluster.spec.addons;
        match self {
            // With the layout Systemd kube-proxy is a unit on each node.
            Self::KubeProxy => addons.kube_proxy.enabled && cluster.layout() == Layout::StaticPod,
            Self::Flannel => addons.flannel.enabled,
            Self::CoreDns => addons.core_dns.enabled,
        }
    }

    /// Returns the objects of the add-on, in the order in which they are applied; the last one is the workload.
    /// `version` selects the images: during an upgrade the add-ons follow the control plane.
    #[must_use]
    pub fn objects(self, cluster: &Cluster, version: Version) -> Vec<TargetObject> {
        let mut objects = match self {
            Self::KubeProxy => kube_proxy::objects(cluster, version),
            Self::Flannel => flannel::objects(cluster, version),
            Self::CoreDns => core_dns::objects(cluster, version),
        };
        for desired in &mut objects {
            let labels = desired.object.metadata.labels.get_or_insert_default();
            labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        }
        objects
    }

    /// Returns the workload of the add-on: a DaemonSet or Deployment.
    #[must_use]
    pub fn workload(self, cluster: &Cluster, version: Version) -> Option<TargetObject> {
        self.objects(cluster, version).pop()
    }
}

/// Adds labels to an object.
fn labelled(mut object: TargetObject, labels: &[(&str, &str)]) -> TargetObject {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    object.object.metadata.labels = Some(labels.collect());
    object
}

fn service_account(namespace: &str, name: &str) -> TargetObject {
    TargetObject::new("", "ServiceAccount", Some(namespace), name, json!({}))
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Returns a binding of a ClusterRole to a ServiceAccount.
fn cluster_role_binding(name: &str, role: &str, namespace: &str, service_account: &str) -> TargetObject {
    let content = json!({
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
    });
    TargetObject::new(RBAC, "ClusterRoleBinding", None, name, content)
}

/// Returns the user's container resources as JSON, or the default.
fn resources(written: Option<&k8s_openapi::api::core::v1::ResourceRequirements>, default: Value) -> Value {
    written.map_or(default, |written| serde_json::to_value(written).unwrap_or_default())
}
