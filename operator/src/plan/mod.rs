//! What to write in the management cluster: a pure function of (cluster, observed, now).
//!
//! [`plan`] says what is missing or wrong and what to do about it; it makes no key and reads no clock. Keys are random,
//! so a step that needs one says what to issue ([`Draft`]) and [`issuance`] makes the object. Planning, issuing and
//! writing are repeated until there is nothing left to do: the controller does it against the API server, and
//! `keyplane render` in memory, with the same functions.

mod asked;
mod authorities;
mod authority_set;
mod departed;
mod encryption;
mod external_etcd;
mod given;
mod given_authorities;
pub(crate) mod initial_cluster;
pub mod issuance;
pub mod kubelet_requests;
pub mod kubelet_turns;
mod node;
mod node_conditions;
pub mod objects;
mod observed;
mod own_credential;
mod pending;
mod restore;
mod revocation;
mod revocation_notice;
pub mod rotation;
mod rotation_status;
mod service_account;
mod signing;
mod signing_status;
pub mod status;
mod successor;
mod user_kubeconfig;
mod users;
mod worker_credential;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;

pub use authorities::Authorities;
pub use authority_set::AuthoritySet;
pub use departed::departed;
pub use encryption::{encryption_use, encryption_work, next_encryption_change, rewriting};
pub use initial_cluster::{INITIAL_CLUSTER_ANNOTATION, MEMBER_ANNOTATION};
pub use observed::{EtcdFacts, Observed, TargetFacts};
pub use own_credential::own_credential;
pub use pending::{Ask, request_config_maps};
pub use restore::is_unknown;
pub use revocation::{is_revoking, is_revoking_any};
pub use rotation_status::is_stuck;
pub use service_account::ServiceAccountKeys;
pub use signing::{Waiting, as_observed, signed_outside};

use crate::cluster::{Cluster, LeafTerms, Node};
use crate::encryption::{State, describe};
use crate::pki::inventory::{AuthorityName, Leaf, user_certificate};
use crate::pki::{Authority, CertificateOrder, PrivateKey, renewal, valid_for};
use crate::rollout::rollout;
use crate::rotation::Subject;
use signing::Desk;

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

/// A Secret that is yet to be issued.
#[derive(Debug)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// What it will hold.
    pub content: Content,
}

/// What a Secret will hold.
#[derive(Debug)]
pub enum Content {
    /// A new authority.
    Authority {
        /// Which one.
        name: AuthorityName,
        /// Its key.
        algorithm: KeyAlgorithm,
        /// From when on it is valid.
        not_before: Timestamp,
        /// Until when.
        not_after: Timestamp,
    },
    /// An authority of the user's own.
    GivenAuthority {
        /// Which one.
        name: AuthorityName,
        /// What was given.
        authority: Box<Authority>,
    },
    /// A new service-account pair.
    ServiceAccountKey {
        /// Its key.
        algorithm: KeyAlgorithm,
    },
    /// The next move of a rotation.
    Rotation {
        /// What is rotated.
        subject: Subject,
        /// What is done.
        step: rotation::Move,
    },
    /// The keys that wait for certificates of signers outside.
    Requests {
        /// Whose they are; nothing for the cluster's own.
        node: Option<String>,
        /// Those that are made.
        asked: Vec<Ask>,
        /// Those that are not needed any more.
        dropped: Vec<String>,
    },
    /// Keyplane's own certificates for a target whose authorities sign outside.
    Own {
        /// The certificates.
        sources: Vec<(&'static own_credential::Own, Source)>,
    },
    /// The keys with which objects are encrypted.
    Encryption {
        /// What is to be remembered of them.
        state: Box<State>,
        /// The reason of the Event about it; nothing where there is no news.
        news: Option<&'static str>,
    },
    /// All that is secret on a node.
    Node {
        /// The node's name.
        node: String,
        /// Its certificates: those that stay, and those that are issued.
        leaves: Vec<PlannedLeaf>,
    },
    /// A client certificate for the kubelet of a worker, for as long as it has none that is good.
    WorkerCredential {
        /// The worker's name.
        node: String,
        /// Where the certificate comes from.
        source: Source,
    },
    /// The cluster's own kubeconfig.
    Kubeconfig {
        /// Its certificate.
        leaf: PlannedLeaf,
    },
    /// A user's kubeconfig.
    User {
        /// The user's name.
        user: String,
        /// Where its certificate comes from.
        source: Source,
    },
}

/// A certificate in a Secret that is to be written.
#[derive(Debug)]
pub struct PlannedLeaf {
    /// Which one.
    pub leaf: &'static Leaf,
    /// Where it comes from.
    pub source: Source,
}

/// Where a certificate that is to be written comes from.
#[derive(Debug)]
pub enum Source {
    /// It stays as it is.
    Keep(Pair),
    /// It is issued.
    Issue {
        /// What it says.
        order: CertificateOrder,
        /// The key that it gets.
        key: KeySource,
        /// Why.
        reason: renewal::Reason,
    },
    /// A signer outside has signed it.
    Take {
        /// The certificate, and the key that has waited for it.
        pair: Pair,
        /// Why it was asked for.
        reason: renewal::Reason,
    },
    /// The kubelet keeps its own, in a file that the kubeconfig refers to.
    KubeletsOwn,
}

/// The key of a certificate that is issued.
#[derive(Debug)]
pub enum KeySource {
    /// A new one.
    New(KeyAlgorithm),
    /// The one that the certificate before had.
    Keep(Secret),
}

/// A certificate and its key as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: Secret,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Something that a person has to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The reason of the condition.
    pub reason: &'static str,
    /// What is in the way, and the cure.
    pub message: String,
}

impl Draft {
    /// The reason of the Event about it: `Renewed` where a certificate takes another one's place, else `Issued`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let replaces = |source: &Source| matches!(source, Source::Issue { reason, .. } | Source::Take { reason, .. } if *reason != renewal::Reason::Missing);
        let renewed = match &self.content {
            Content::Authority { .. } | Content::GivenAuthority { .. } | Content::ServiceAccountKey { .. } => false,
            Content::Rotation { step, .. } => return step.reason(),
            Content::Encryption { news, .. } => return news.unwrap_or("Continued"),
            Content::Requests { asked, .. } => return if asked.is_empty() { "RequestSettled" } else { "Requested" },
            Content::Own { sources } => sources.iter().any(|(_, source)| replaces(source)),
            Content::Node { leaves, .. } => leaves.iter().any(|planned| replaces(&planned.source)),
            Content::Kubeconfig { leaf } => replaces(&leaf.source),
            Content::User { source, .. } | Content::WorkerCredential { source, .. } => replaces(source),
        };
        if renewed { "Renewed" } else { "Issued" }
    }

    /// Whether an Event tells of it: what goes on step by step is told at its beginning and its end.
    #[must_use]
    pub const fn is_news(&self) -> bool {
        !matches!(self.content, Content::Encryption { news: None, .. })
    }

    /// What the step does, for an Event and the log: names and reasons, nothing secret.
    #[must_use]
    pub fn describe(&self) -> String {
        let issued = |sources: &[(&str, &Source)]| {
            let issued: Vec<_> = sources
                .iter()
                .filter_map(|(certificate, source)| match source {
                    Source::Issue { reason, .. } => Some(format!("{certificate} ({})", reason.name())),
                    Source::Take { reason, .. } => Some(format!("{certificate} ({}, signed outside)", reason.name())),
                    Source::Keep(_) | Source::KubeletsOwn => None,
                })
                .collect();
            if issued.is_empty() { "no certificate issued".to_owned() } else { format!("issued {}", issued.join(", ")) }
        };
        match &self.content {
            Content::Authority { name, .. } => format!("made the authority {} in Secret {}", name.name(), self.name),
            Content::GivenAuthority { name, authority } => {
                let (name, given) = (name.name(), authority.name());
                format!("took the authority {name} from Secret {given} over into Secret {}", self.name)
            }
            Content::ServiceAccountKey { .. } => format!("made the service-account key in Secret {}", self.name),
            Content::Rotation { subject, step } => step.describe(*subject, &self.name),
            Content::Encryption { state, .. } => format!("encryption at rest: {}", describe(state)),
            Content::Requests { node, asked, dropped } => {
                let of = node.as_ref().map_or_else(String::new, |node| format!(" for node {node}"));
                let asked: Vec<_> = asked.iter().map(|ask| ask.id.as_str()).collect();
                match asked.as_slice() {
                    [] => format!("forgot keys in Secret {}{of}: {}", self.name, dropped.join(", ")),
                    asked => format!("made keys in Secret {}{of} to ask with: {}", self.name, asked.join(", ")),
                }
            }
            Content::Own { sources } => {
                let sources: Vec<_> = sources.iter().map(|(own, source)| (own.id, source)).collect();
                format!("wrote Secret {}: {}", self.name, issued(&sources))
            }
            Content::Node { node, leaves } => {
                let sources: Vec<_> = leaves.iter().map(|planned| (planned.leaf.name, &planned.source)).collect();
                format!("wrote Secret {} for node {node}: {}", self.name, issued(&sources))
            }
            Content::WorkerCredential { node, source } => {
                format!("wrote Secret {} for the kubelet of {node}: {}", self.name, issued(&[("kubelet.conf", source)]))
            }
            Content::Kubeconfig { leaf } => {
                format!("wrote Secret {}: {}", self.name, issued(&[(leaf.leaf.name, &leaf.source)]))
            }
            Content::User { user, source } => {
                format!("wrote Secret {}: {}", self.name, issued(&[(&user_certificate(user), source)]))
            }
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
    objects::plan_config_map(objects::trust_bundle(cluster, &authorities), observed, plan);
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
                objects::plan_config_map(
                    objects::node_config(cluster, node, &authorities, &rollout, observed),
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
