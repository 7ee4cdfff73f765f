//! The add-ons of a cluster: the objects that make them, what is to be done with what is found in the target, the rights
//! that this takes, and what the condition `AddonsReady` says.
//!
//! kubeadm's add-ons are as kubeadm writes them, object by object; the oracle test holds them against it.

mod core_dns;
mod flannel;
mod judgement;
mod kube_proxy;
mod rights;
mod status;

use keyplane_crds::Layout;
use serde_json::{Value, json};

pub use judgement::{Judgement, is_ours, is_to_be_left, judge};
pub(crate) use rights::{Rule, rights};
pub use status::{AddonFacts, Health, Rollout, health};

use crate::model::{Cluster, Version};
use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::target_objects::TargetObject;

/// The namespace of kubeadm's add-ons.
const KUBE_SYSTEM: &str = "kube-system";

/// An add-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Addon {
    /// Services on each machine.
    KubeProxy,
    /// The network of Pods.
    Flannel,
    /// The cluster's DNS.
    CoreDns,
}

impl Addon {
    /// All, in the order in which they are applied: DNS is the one that needs the others.
    pub const ALL: [Self; 3] = [Self::KubeProxy, Self::Flannel, Self::CoreDns];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::Flannel => "Flannel",
            Self::CoreDns => "CoreDNS",
        }
    }

    /// Whether the cluster is to have it.
    #[must_use]
    pub fn is_enabled(self, cluster: &Cluster) -> bool {
        let addons = &cluster.spec.addons;
        match self {
            // The hard way runs it as a unit on each machine.
            Self::KubeProxy => addons.kube_proxy.enabled && cluster.layout() == Layout::StaticPod,
            Self::Flannel => addons.flannel.enabled,
            Self::CoreDns => addons.core_dns.enabled,
        }
    }

    /// The objects that make it, in the order in which they are applied; the last one runs its Pods. `version` is the one
    /// whose images are taken: in an upgrade the add-ons follow the control plane.
    #[must_use]
    pub fn objects(self, cluster: &Cluster, version: Version) -> Vec<TargetObject> {
        let mut objects = match self {
            Self::KubeProxy => kube_proxy::objects(cluster, version),
            Self::Flannel => flannel::objects(cluster, version),
            Self::CoreDns => core_dns::objects(cluster, version),
        };
        for wanted in &mut objects {
            let labels = wanted.object.metadata.labels.get_or_insert_default();
            labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        }
        objects
    }

    /// The object that runs its Pods.
    #[must_use]
    pub fn workload(self, cluster: &Cluster, version: Version) -> Option<TargetObject> {
        self.objects(cluster, version).pop()
    }
}

/// An object with labels.
fn labelled(mut object: TargetObject, labels: &[(&str, &str)]) -> TargetObject {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    object.object.metadata.labels = Some(labels.collect());
    object
}

fn service_account(namespace: &str, name: &str) -> TargetObject {
    TargetObject::new("", "ServiceAccount", Some(namespace), name, json!({}))
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// A binding of a ClusterRole to a ServiceAccount.
fn cluster_role_binding(name: &str, role: &str, namespace: &str, service_account: &str) -> TargetObject {
    let content = json!({
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
    });
    TargetObject::new(RBAC, "ClusterRoleBinding", None, name, content)
}

/// A container's resources as an object of the API.
fn resources(written: Option<&k8s_openapi::api::core::v1::ResourceRequirements>, default: Value) -> Value {
    written.map_or(default, |written| serde_json::to_value(written).unwrap_or_default())
}
