//! What to write in the management cluster: a pure function of (cluster, observed, now).
//!
//! [`plan`] says what is missing or wrong and what to do about it; it makes no key and reads no clock. Keys are random,
//! so a step that needs one says what to issue ([`Draft`]) and `keyplane-issuance` makes the object. Planning, issuing and
//! writing are repeated until there is nothing left to do: the controller does it against the API server, and
//! `keyplane render` in memory, with the same functions.

mod asked;
mod authorities;
mod config_maps;
mod departed;
mod draft;
mod encryption;
mod external_etcd;
mod given;
mod given_authorities;
pub mod kubelet_requests;
pub mod kubelet_turns;
mod node;
mod node_conditions;
mod own_credential;
mod pending;
mod restore;
mod revocation;
mod revocation_notice;
pub mod rotation;
mod rotation_status;
mod signing;
mod signing_status;
pub mod status;
mod user_kubeconfig;
mod users;
mod worker_credential;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::jiff::Timestamp;

pub use departed::departed;
pub use draft::{Content, Draft, KeySource, Pair, PlannedLeaf, Source};
pub use encryption::{encryption_use, encryption_work, next_encryption_change, rewriting};
pub use own_credential::own_credential;
pub use pending::{Ask, request_config_maps};
pub use restore::is_unknown;
pub use rotation_status::is_stuck;
pub use signing::{Waiting, as_observed, signed_outside};

use crate::blocker::Blocker;
use crate::inventory::Leaf;
use crate::model::{Cluster, Node};
use crate::observed::Observed;
use crate::pki::LeafTerms;
use crate::pki::{CertificateOrder, valid_for};
use crate::rollout::rollout;
use signing::Desk;

/// How the Secret of each kind of draft is put together from keys and certificates.
pub mod secrets {
    pub use super::encryption::compose as encryption;
    pub use super::given::{GivenFile, files as given_files};
    pub use super::node::compose as node;
    pub use super::own_credential::compose as own_credential;
    pub use super::pending::compose as pending;
    pub use super::user_kubeconfig::compose as user_kubeconfig;
    pub use super::users::compose as users;
    pub use super::worker_credential::compose as worker_credential;
}

/// What is to be done now, and what can't be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be carried out in this order. Later ones may depend on earlier ones, so a plan is made again after them.
    pub steps: Vec<Step>,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// The certificates that wait for a signer outside.
    pub waiting: Vec<Waiting>,
}

/// One write: an object that was not there is created, and one that was there is replaced in the very version that was
/// seen.
#[derive(Debug)]
pub enum Step {
    /// A Secret with keys, which is yet to be issued.
    Secret(Box<Draft>),
    /// A ConfigMap that is derived from the spec.
    ConfigMap(Box<ConfigMap>),
    /// An object of ours that nothing needs any more.
    Removal(Box<Removal>),
}

/// The deletion of an object, in the very version that was seen.
#[derive(Debug)]
pub struct Removal {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Option<String>,
    /// The version that was seen.
    pub resource_version: Option<String>,
    /// Why, as the reason of an Event.
    pub reason: &'static str,
    /// What happens and what a person has to do, for an Event and the log.
    pub note: String,
}

impl Removal {
    /// The object, for an Event.
    #[must_use]
    pub fn object(&self, namespace: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(self.kind.name().to_owned()),
            name: Some(self.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: self.uid.clone(),
            ..ObjectReference::default()
        }
    }
}

/// The kinds that Keyplane writes in the management cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl Kind {
    /// Its name in the Kubernetes API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// Says what to write. An empty plan means that everything is as it should be.
#[must_use]
pub fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan_all(cluster, observed, now, &mut plan);
    restore::hold(cluster, observed, &mut plan);
    plan
}

fn plan_all(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) {
    let Some(authorities) = authorities::plan(cluster, observed, now, plan) else { return };
    // It waits for nobody, and everything else follows from it.
    if revocation::plan(cluster, &authorities, observed, now, plan) {
        return;
    }
    plan.blockers.extend(external_etcd::ended(cluster, observed, now));
    config_maps::plan_config_map(config_maps::trust_bundle(cluster, &authorities), observed, plan);
    let rollout = rollout(cluster, observed);
    // A machine's files come after the keys that are in them.
    let has_keys = encryption::plan(cluster, observed, now, plan);
    match given::files(cluster, observed) {
        _ if !has_keys => {}
        Err(blocker) => plan.blockers.push(blocker),
        Ok(given) => {
            for node in cluster.machines() {
                node::plan(cluster, node, &authorities, &given, observed, now, plan);
            }
            // Those of workers are the NodePools' controller's.
            for node in &cluster.nodes {
                config_maps::plan_config_map(
                    config_maps::node_config(cluster, node, &authorities, &rollout, observed),
                    observed,
                    plan,
                );
            }
        }
    }
    worker_credential::plan(cluster, &authorities, observed, now, plan);
    let mut desk = Desk::open(cluster, None, observed, now, plan);
    user_kubeconfig::plan(cluster, &authorities, &mut desk, observed, now, plan);
    users::plan(cluster, &authorities, &mut desk, observed, now, plan);
    own_credential::plan(cluster, &authorities, &mut desk, observed, now, plan);
    desk.close(plan);
    departed::plan(cluster, observed, plan);
    // Only once all that follows from the stages as they are is written may one of them go on.
    if plan.steps.is_empty() && plan.blockers.is_empty() {
        rotation::plan(cluster, &authorities, observed, rollout.progress.wait(), now, plan);
    }
}

/// The order for a certificate on a node, from now on.
fn order(cluster: &Cluster, node: &Node, leaf: &Leaf, terms: LeafTerms, now: Timestamp) -> CertificateOrder {
    let (not_before, not_after) = valid_for(now, terms.validity);
    CertificateOrder {
        subject: leaf.subject(node),
        alternative_names: leaf.alternative_names(cluster, node),
        extended_usages: leaf.usages.to_vec(),
        not_before,
        not_after,
    }
}
