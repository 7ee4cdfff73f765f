//! Keyplane installed in a management cluster, as most tests and the demo need it.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::machine::{Machine, lab_kubelet_settings};
use crate::management::Management;
use crate::operator::Operator;
pub use crate::wait::{PATIENCE, eventually};
use crate::{binary, command};

/// The user that Keyplane is in the management cluster.
pub const USER: &str = "keyplane";

/// The name of the first replica.
pub const FIRST_REPLICA: &str = "keyplane-0";

/// A management cluster with Keyplane's kinds, and Keyplane running in it.
#[derive(Debug)]
pub struct Installation {
    /// The management cluster.
    pub management: Management,
    /// kubectl as the user that Keyplane is.
    pub user: Kubectl,
    /// The first replica.
    pub operator: Operator,
}

impl Installation {
    /// Starts a management cluster, installs the kinds and starts Keyplane.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let management = Management::start(lab)?;
        install_kinds(&management)?;
        let user = management.add_keyplane(USER)?;
        let operator = Operator::start(lab, &user, FIRST_REPLICA)?;
        Ok(Self { management, user, operator })
    }

    /// kubectl as an administrator of the management cluster.
    #[must_use]
    pub fn admin(&self) -> &Kubectl {
        self.management.admin()
    }

    /// Waits until a ClusterSpec in the namespace `default` has a condition.
    ///
    /// # Errors
    /// When it has not within [`PATIENCE`], or Keyplane has ended.
    pub fn wait_for(&mut self, cluster: &str, condition: &str) -> Result<()> {
        let what = format!("clusterspec {cluster} with the condition {condition}");
        let result = eventually(&what, PATIENCE, || {
            self.operator.check_running()?;
            self.management.admin().check_condition(&["clusterspec", cluster], condition)
        });
        result.with_context(|| format!("the operator's log is {}", self.operator.log().display()))
    }
}

/// A ClusterSpec with one machine that nobody starts: an address of 192.0.2.0/24, which is for documentation.
#[must_use]
pub fn cluster_spec(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "keyplane.io/v1alpha1",
        "kind": "ClusterSpec",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": address},
            "controlPlane": {"nodes": [{"name": "cp1", "addresses": [address]}]},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
        },
    })
}

/// A ClusterSpec whose machines the lab can boot, without add-ons. `endpoint` is a load balancer, or the only machine.
#[must_use]
pub fn bootable_cluster_spec(name: &str, endpoint: &str, control_plane: &[Machine]) -> Value {
    let nodes: Vec<_> =
        control_plane.iter().map(|machine| json!({"name": machine.name(), "addresses": [machine.address()]})).collect();
    json!({
        "apiVersion": "keyplane.io/v1alpha1",
        "kind": "ClusterSpec",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": endpoint},
            "controlPlane": {"nodes": nodes, "kubelet": control_plane.first().map(lab_kubelet_settings)},
            "addons": {"coreDNS": {"enabled": false}, "kubeProxy": {"enabled": false}},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
        },
    })
}

/// Installs the kinds that `keyplane crds` prints.
///
/// # Errors
/// When the API server refuses them.
pub fn install_kinds(management: &Management) -> Result<()> {
    install_kinds_in(management.admin())
}

/// The same in any cluster, as its administrator.
///
/// # Errors
/// When the API server refuses them.
pub fn install_kinds_in(admin: &Kubectl) -> Result<()> {
    let kinds = command::run(Command::new(binary::keyplane()?).arg("crds"))?;
    admin.apply(&kinds)?;
    // kubectl ends at once with an error while a definition has no conditions at all.
    eventually("kinds that are established", PATIENCE, || {
        admin.run(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"])
    })?;
    Ok(())
}
