//! Plans the steps of rotations: which CA or key enters its next stage, and the conditions that each stage waits for.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{KeyAlgorithm, reasons};
use kube::ResourceExt;

use super::kubelet_rotation_order::kubelets_without_client_of;
use super::rotation_requests::{RotationRequest, outdated_nodes, rotation_request, state_of};
use super::{Content, Draft, Plan, Step, user_provided_cas};
use crate::certificate_authorities::{CaSet, ClusterCas, secret_of};
use crate::model::Cluster;
use crate::names;
use crate::observed::Observed;
use crate::pki::{CaName, CertificateAuthority, valid_for};
use crate::rotation::{Stage, StageInputs, State, Subject, waits};

/// A change of the Secret of a CA or key.
#[derive(Debug)]
pub enum RotationStep {
    /// The rotation starts: the Secret gets a successor that nothing depends on yet.
    Begin {
        /// The new CA or key.
        successor: Successor,
        /// The start of the validity of new certificates; for a CA.
        not_before: Timestamp,
        /// The new state.
        state: State,
    },
    /// A CA that is not being rotated gets a new certificate for the same key.
    Renew {
        /// The certificate.
        renewal: Renewal,
    },
    /// The rotation enters another stage, or rolls back.
    Enter {
        /// The new state.
        state: State,
        /// Whether the peer CA or key signs from now on.
        swap: bool,
    },
    /// A revocation replaces the CA or key at once. The old certificate stays in the Secret until every server is seen
    /// to reject it.
    Revoke {
        /// The new CA or key.
        successor: Successor,
        /// The start of the validity of new certificates; for a CA.
        not_before: Timestamp,
        /// The new state.
        state: State,
    },
    /// The rotation is completed and the old CA or key is removed from the Secret.
    Complete {
        /// The new state.
        state: State,
    },
}

/// The replacement of a CA or key.
#[derive(Debug)]
pub enum Successor {
    /// Keyplane generates the successor.
    Generated {
        /// The key algorithm.
        algorithm: KeyAlgorithm,
        /// The end of the validity; for a CA.
        not_after: Timestamp,
    },
    /// The user provides the successor.
    UserProvided(Box<CertificateAuthority>),
}

/// A new certificate for the key of a CA.
#[derive(Debug)]
pub enum Renewal {
    /// Keyplane issues the certificate.
    Issued {
        /// The start of the validity.
        not_before: Timestamp,
        /// The end of the validity.
        not_after: Timestamp,
    },
    /// The user provides the certificate.
    UserProvided(Box<CertificateAuthority>),
}

impl RotationStep {
    /// Returns the reason of the Event.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Begin { .. } => reasons::ROTATION_STARTED,
            Self::Revoke { .. } => reasons::REVOKED,
            Self::Renew { .. } => reasons::CA_RENEWED,
            Self::Enter { state, .. } if state.rolling_back => reasons::ROTATION_ROLLING_BACK,
            Self::Enter { .. } => reasons::ROTATION_ADVANCED,
            Self::Complete { .. } => reasons::ROTATION_COMPLETED,
        }
    }

    /// Returns the message for the Event and the log.
    #[must_use]
    pub fn describe(&self, subject: Subject, secret: &str) -> String {
        let name = subject.name();
        match self {
            Self::Begin { successor, state, .. } => {
                let requested = state.requested.as_deref().unwrap_or_default();
                let (done, from) = match successor {
                    Successor::Generated { .. } => ("generated", String::new()),
                    Successor::UserProvided(user_provided) => {
                        ("copied", format!(" from Secret {}", user_provided.name()))
                    }
                };
                format!(
                    "rotation of {name}, requested by {requested:?}: {done} the new one{from} into Secret {secret}; \
                     stage Trust"
                )
            }
            Self::Revoke { state, .. } => {
                let requested = state.requested.as_deref().unwrap_or_default();
                format!(
                    "revoked {name}, as requested by {requested:?} and confirmed: the new one is in Secret {secret}"
                )
            }
            Self::Renew { renewal } => {
                let (end, from) = match renewal {
                    Renewal::Issued { not_after, .. } => (*not_after, String::new()),
                    Renewal::UserProvided(user_provided) => {
                        (user_provided.facts().not_after, format!(", from Secret {}", user_provided.name()))
                    }
                };
                format!(
                    "renewed {name} in Secret {secret} with the same key{from}; the new certificate expires at {end}"
                )
            }
            Self::Enter { state, .. } => {
                let stage = state.stage.map_or("none", Stage::name);
                let back = if state.rolling_back { "rolling back, " } else { "" };
                format!("rotation of {name}: {back}stage {stage}, phase {}", state.phase().name())
            }
            Self::Complete { state } if state.rolling_back => {
                format!("rotation of {name}: rolled back; removed the new one from Secret {secret}")
            }
            Self::Complete { .. } => {
                format!("rotation of {name}: completed; removed the old one from Secret {secret}")
            }
        }
    }
}

/// The progress of the current rotation, or of the last one.
#[derive(Debug)]
pub struct Progress {
    /// The CA or key that is rotated.
    pub subject: Subject,
    /// The state of the rotation.
    pub state: State,
    /// The conditions that the stage waits for.
    pub waits: Vec<String>,
    /// Whether every node has applied the files of this stage and runs with them.
    pub nodes_updated: bool,
}

/// Returns the progress of all rotations. `rollout` is the condition that the rollout of static pods waits for.
#[must_use]
pub fn progress(
    cluster: &Cluster,
    cas: &ClusterCas,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
) -> Vec<Progress> {
    let trust = cas.trust();
    // Nobody needs the list while nothing is rotated.
    let outdated = if cas.is_rotating() { outdated_nodes(cluster, observed, now) } else { vec![] };
    let of = |subject: Subject| {
        let state = state_of(cas, subject)?.clone();
        let Some(stage) = state.stage else {
            return Some(Progress { subject, state, waits: vec![], nodes_updated: false });
        };
        let before = observed.status.rotations.iter().find(|before| before.name == subject.name());
        let before = before.filter(|before| before.last_transition_time.0 == state.since);
        let set = if let Subject::CertificateAuthority(name) = subject { cas.get(name) } else { None };
        let pair = set.and_then(CaSet::old_and_new);
        let keys = match subject {
            Subject::ServiceAccountKey => cas.service_account().old_and_new(),
            Subject::CertificateAuthority(_) => None,
        };
        let keys = keys.map(|(old, new)| (old.token_key_id(), new.token_key_id()));
        let requested = state.requested.as_deref().unwrap_or_default();
        let kubelet_clients = match (subject, pair) {
            (Subject::CertificateAuthority(CaName::Cluster), Some((_, new))) => {
                kubelets_without_client_of(observed, new.facts())
            }
            _ => vec![],
        };
        let nodes_updated = outdated.is_empty() && rollout.is_none();
        let inputs = StageInputs {
            nodes: cluster.nodes.iter().map(|node| node.name.as_str()).collect(),
            cas: pair.map(|(old, new)| (old.facts(), new.facts())),
            keys: keys.as_ref().map(|(old, new)| (old.as_str(), new.as_str())),
            is_cross_signed: set.is_some_and(CaSet::is_cross_signed),
            trust: &trust,
            rollout,
            outdated_nodes: outdated.clone(),
            kubelet_clients,
            nodes_updated_since: before.and_then(|before| before.nodes_updated_time.as_ref()).map(|time| time.0),
            may_complete: cluster.rotate.completes(requested)
                || (state.rolling_back || cluster.policy.completes_rotations) && subject.settles(&state) <= now,
            unobservable_users: unobservable_users(cluster, subject, &state),
            now,
        };
        let waits = waits(subject, stage, &inputs, &observed.target.rotation);
        Some(Progress { subject, state, waits, nodes_updated })
    };
    Subject::ALL.into_iter().filter_map(of).collect()
}

/// Returns the possible users of the old CA or key that Keyplane can't observe. The user needs this list to approve the
/// completion.
fn unobservable_users(cluster: &Cluster, subject: Subject, state: &State) -> Vec<String> {
    let requested = state.requested.as_deref().unwrap_or_default();
    let mut unobservable_users = vec![format!(
        "spec.rotate.complete: {requested:?}, after you checked that none of the following depends on the old one"
    )];
    match subject {
        Subject::CertificateAuthority(CaName::Cluster) => {
            unobservable_users.push(format!(
                "copies of the kubeconfig in Secret {}: copy it again",
                names::kubeconfig_secret(&cluster.name)
            ));
            unobservable_users.extend(cluster.users.iter().map(|user| {
                let secret = names::user_secret(&cluster.name, &user.name);
                format!("the kubeconfig of user {}: Secret {secret} has a new one", user.name)
            }));
            unobservable_users
                .push("Pods and programs that keep the old CA in memory or in their own files".to_owned());
        }
        Subject::CertificateAuthority(CaName::Etcd) => {
            unobservable_users.push("clients of etcd other than the API servers, for example backups".to_owned());
        }
        Subject::CertificateAuthority(CaName::FrontProxy) => {
            unobservable_users
                .push("aggregated API servers that do not reload extension-apiserver-authentication".to_owned());
        }
        Subject::ServiceAccountKey => {
            unobservable_users.push(format!("tokens of Pods: the kubelets renew them by {}", subject.settles(state)));
            unobservable_users
                .push("tokens in Secrets of type kubernetes.io/service-account-token: recreate the Secrets".to_owned());
            unobservable_users.push(
                "tokens that are valid for more than an hour: up to a year with `kubectl create token`".to_owned(),
            );
        }
    }
    unobservable_users
}

/// Plans the next step of each rotation. Callers make sure that everything that follows from the current stages is
/// written.
pub(crate) fn plan(
    cluster: &Cluster,
    cas: &ClusterCas,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut in_progress = progress(cluster, cas, observed, rollout, now);
    let mut user_provided = user_provided_cas::read_all(cluster, observed, now);
    for subject in Subject::ALL {
        let Some(secret) = secret_of(cluster, observed, subject) else { continue };
        let last =
            in_progress.iter().position(|progress| progress.subject == subject).map(|at| in_progress.swap_remove(at));
        let step = if let Some(progress) = last.filter(|progress| progress.state.stage.is_some()) {
            next(cluster, &progress, now)
        } else {
            let rotation_request = rotation_request(cluster, cas, subject, secret, &mut user_provided);
            begin(cluster, cas, observed, subject, rotation_request, rollout, now)
        };
        let content = step.map(|step| Content::Rotation { subject, step });
        plan.steps.extend(content.map(|content| Step::Secret(Box::new(Draft { name: secret.name_any(), content }))));
    }
}

fn next(cluster: &Cluster, progress: &Progress, now: Timestamp) -> Option<RotationStep> {
    let Progress { subject, state, waits, .. } = progress;
    let stage = state.stage?;
    let is_rolled_back = state.requested.as_deref().is_some_and(|requested| cluster.rotate.rolls_back(requested));
    if is_rolled_back
        && !state.rolling_back
        && let Some(back) = subject.back_from(stage)
    {
        // A key that already signs is swapped back at once. For a CA, its certificates have to be replaced first.
        let swap = *subject == Subject::ServiceAccountKey && back == Stage::Signing;
        return Some(RotationStep::Enter { state: state.back(back, now), swap });
    }
    if !waits.is_empty() {
        return None;
    }
    let Some(next) = subject.after(stage) else {
        return Some(RotationStep::Complete { state: state.in_stage(None, now) });
    };
    Some(RotationStep::Enter { state: state.in_stage(Some(next), now), swap: next == Stage::Signing })
}

/// Starts a rotation or renewal. A rotation starts only while the cluster is healthy: an earlier problem would be
/// attributed to the rotation.
fn begin(
    cluster: &Cluster,
    cas: &ClusterCas,
    observed: &Observed,
    subject: Subject,
    rotation_request: RotationRequest,
    rollout: Option<&str>,
    now: Timestamp,
) -> Option<RotationStep> {
    if !rotation_request.waits(cluster, cas, observed, subject, rollout, now).is_empty() {
        return None;
    }
    let (not_before, not_after) = valid_for(now, cluster.policy.ca_validity);
    let algorithm = match subject {
        Subject::CertificateAuthority(_) => cluster.policy.ca_key_algorithm,
        Subject::ServiceAccountKey => cluster.policy.default_leaf().key_algorithm,
    };
    match rotation_request {
        RotationRequest::None | RotationRequest::Rejected(_) => None,
        RotationRequest::Renewal(user_provided) => {
            let renewal = user_provided.map_or(Renewal::Issued { not_before, not_after }, Renewal::UserProvided);
            Some(RotationStep::Renew { renewal })
        }
        RotationRequest::Rotation { requested, user_provided } => {
            let successor =
                user_provided.map_or(Successor::Generated { algorithm, not_after }, Successor::UserProvided);
            Some(RotationStep::Begin { successor, not_before, state: State::begin(Some(requested), now) })
        }
    }
}
