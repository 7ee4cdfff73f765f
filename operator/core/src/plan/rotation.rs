//! The moves of rotations: which Secret of an authority or key goes into its next stage, and what each stage waits for.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{KeyAlgorithm, reasons};
use kube::ResourceExt;

use super::asked::{Asked, asked};
use super::kubelet_turns::clients_not_of;
use super::{Content, Draft, Plan, Step, given_authorities};
use crate::agent_access;
use crate::authorities::Authorities;
use crate::authorities::AuthoritySet;
use crate::authorities::secret_of;
use crate::model::Cluster;
use crate::names;
use crate::observed::Observed;
use crate::pki::AuthorityName;
use crate::pki::{Authority, valid_for};
use crate::rotation::{Circumstances, Stage, State, Subject, waits};

/// What is done to the Secret of an authority or key.
#[derive(Debug)]
pub enum Move {
    /// There is a successor, which nothing depends on yet.
    Begin {
        /// The successor.
        successor: Successor,
        /// From when on what is made for it is valid; for an authority.
        not_before: Timestamp,
        /// The state from then on.
        state: State,
    },
    /// An authority that is not being rotated gets another certificate of its key.
    Renew {
        /// The certificate.
        renewal: Renewal,
    },
    /// The rotation goes on to another stage, or back.
    Enter {
        /// The state from then on.
        state: State,
        /// Whether the other one signs from then on.
        swap: bool,
    },
    /// What is there is replaced at once, and good nowhere any more. It stays for as long as it takes to see that.
    Revoke {
        /// The successor.
        successor: Successor,
        /// From when on what is made for it is valid; for an authority.
        not_before: Timestamp,
        /// The state from then on.
        state: State,
    },
    /// The old one is forgotten.
    Complete {
        /// The state from then on.
        state: State,
    },
}

/// What takes the place of an authority or key.
#[derive(Debug)]
pub enum Successor {
    /// It is made.
    Made {
        /// Its key.
        algorithm: KeyAlgorithm,
        /// Until when it is valid; for an authority.
        not_after: Timestamp,
    },
    /// The user gives it.
    Given(Box<Authority>),
}

/// Another certificate for an authority.
#[derive(Debug)]
pub enum Renewal {
    /// It is made.
    Made {
        /// From when on it is valid.
        not_before: Timestamp,
        /// Until when.
        not_after: Timestamp,
    },
    /// The user gives it.
    Given(Box<Authority>),
}

impl Move {
    /// The reason of the Event about it.
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

    /// What it does, for an Event and the log.
    #[must_use]
    pub fn describe(&self, subject: Subject, secret: &str) -> String {
        let name = subject.name();
        match self {
            Self::Begin { successor, state, .. } => {
                let requested = state.requested.as_deref().unwrap_or_default();
                let (done, from) = match successor {
                    Successor::Made { .. } => ("made", String::new()),
                    Successor::Given(given) => ("took", format!(" from Secret {}", given.name())),
                };
                format!(
                    "rotation of {name}, asked for by {requested:?}: {done} a successor{from}, in Secret {secret}; stage Trust"
                )
            }
            Self::Revoke { state, .. } => {
                let requested = state.requested.as_deref().unwrap_or_default();
                format!("revoked {name}, as asked for by {requested:?} and confirmed: a new one is in Secret {secret}")
            }
            Self::Renew { renewal } => {
                let (end, from) = match renewal {
                    Renewal::Made { not_after, .. } => (*not_after, String::new()),
                    Renewal::Given(given) => (given.facts().not_after, format!(", from Secret {}", given.name())),
                };
                format!("{name} in Secret {secret} has another certificate of the same key{from}, until {end}")
            }
            Self::Enter { state, .. } => {
                let stage = state.stage.map_or("none", Stage::name);
                let back = if state.rolling_back { "back, " } else { "" };
                format!("rotation of {name}: {back}stage {stage}, phase {}", state.phase().name())
            }
            Self::Complete { state } if state.rolling_back => {
                format!("rotation of {name}: taken back; the successor is gone from Secret {secret}")
            }
            Self::Complete { .. } => {
                format!("rotation of {name}: completed; the former one is gone from Secret {secret}")
            }
        }
    }
}

/// A rotation that is under way, or was the last one.
#[derive(Debug)]
pub struct Progress {
    /// What is rotated.
    pub subject: Subject,
    /// How far it is.
    pub state: State,
    /// What its stage waits for.
    pub waits: Vec<String>,
    /// Whether every machine holds what the stage has written, and runs it.
    pub is_held: bool,
}

/// How far the rotations are. `rollout` is what the rollout of static pods waits for.
#[must_use]
pub fn progress(
    cluster: &Cluster,
    authorities: &Authorities,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
) -> Vec<Progress> {
    let trust = authorities.trust();
    // Nobody asks while nothing is rotated.
    let machines = if authorities.is_rotating() { not_current(cluster, observed, now) } else { vec![] };
    let of = |subject: Subject| {
        let state = state_of(authorities, subject)?.clone();
        let Some(stage) = state.stage else {
            return Some(Progress { subject, state, waits: vec![], is_held: false });
        };
        let before = observed.status.rotations.iter().find(|before| before.name == subject.name());
        let before = before.filter(|before| before.last_transition_time.0 == state.since);
        let set = if let Subject::Authority(name) = subject { authorities.get(name) } else { None };
        let pair = set.and_then(AuthoritySet::old_and_new);
        let keys = match subject {
            Subject::ServiceAccountKey => authorities.service_account().old_and_new(),
            Subject::Authority(_) => None,
        };
        let keys = keys.map(|(old, new)| (old.token_key_id(), new.token_key_id()));
        let requested = state.requested.as_deref().unwrap_or_default();
        let kubelet_clients = match (subject, pair) {
            (Subject::Authority(AuthorityName::Cluster), Some((_, new))) => clients_not_of(observed, new.facts()),
            _ => vec![],
        };
        let is_held = machines.is_empty() && rollout.is_none();
        let circumstances = Circumstances {
            nodes: cluster.nodes.iter().map(|node| node.name.as_str()).collect(),
            authorities: pair.map(|(old, new)| (old.facts(), new.facts())),
            keys: keys.as_ref().map(|(old, new)| (old.as_str(), new.as_str())),
            is_cross_signed: set.is_some_and(AuthoritySet::is_cross_signed),
            trust: &trust,
            rollout,
            machines: machines.clone(),
            kubelet_clients,
            held_since: before.and_then(|before| before.nodes_updated_time.as_ref()).map(|time| time.0),
            may_complete: cluster.rotate.completes(requested)
                || (state.rolling_back || cluster.policy.completes_rotations) && subject.settles(&state) <= now,
            unseen: unseen(cluster, subject, &state),
            now,
        };
        let waits = waits(subject, stage, &circumstances, &observed.target.rotation);
        Some(Progress { subject, state, waits, is_held })
    };
    Subject::ALL.into_iter().filter_map(of).collect()
}

/// The machines that do not hold yet what is written for them, each with what is to be done.
pub(super) fn not_current(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Vec<String> {
    let held = |node: &String| agent_access::holds_current(cluster, observed, node, now).err();
    agent_access::machines(cluster, observed).iter().filter_map(held).collect()
}

pub(super) fn state_of(authorities: &Authorities, subject: Subject) -> Option<&State> {
    match subject {
        Subject::Authority(name) => authorities.get(name)?.state(),
        Subject::ServiceAccountKey => authorities.service_account().state(),
    }
}

/// What may depend on the old one and can't be seen, for the person who decides whether it is taken away.
fn unseen(cluster: &Cluster, subject: Subject, state: &State) -> Vec<String> {
    let requested = state.requested.as_deref().unwrap_or_default();
    let mut unseen =
        vec![format!("spec.rotate.complete: {requested:?}, once nothing of the following depends on the old one")];
    match subject {
        Subject::Authority(AuthorityName::Cluster) => {
            unseen.push(format!(
                "kubeconfigs that were copied from Secret {} before: fetch it again",
                names::kubeconfig_secret(&cluster.name)
            ));
            unseen.extend(cluster.users.iter().map(|user| {
                let secret = names::user_secret(&cluster.name, &user.name);
                format!("the kubeconfig of {}: Secret {secret} has a new one", user.name)
            }));
            unseen.push("Pods and programs that keep the old authority in memory or in files of their own".to_owned());
        }
        Subject::Authority(AuthorityName::Etcd) => {
            unseen.push("clients of etcd other than the API servers, for example backups".to_owned());
        }
        Subject::Authority(AuthorityName::FrontProxy) => {
            unseen
                .push("aggregated API servers that do not look at extension-apiserver-authentication again".to_owned());
        }
        Subject::ServiceAccountKey => {
            unseen.push(format!("tokens of Pods: their kubelets have renewed them by {}", subject.settles(state)));
            unseen.push("tokens of Secrets of the type kubernetes.io/service-account-token: make them anew".to_owned());
            unseen.push(
                "tokens that were issued for longer than an hour: up to a year by `kubectl create token`".to_owned(),
            );
        }
    }
    unseen
}

/// Plans the next move of each rotation. Everything that follows from the present stages is written.
pub(super) fn plan(
    cluster: &Cluster,
    authorities: &Authorities,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut under_way = progress(cluster, authorities, observed, rollout, now);
    let mut given = given_authorities::given(cluster, observed, now);
    for subject in Subject::ALL {
        let Some(secret) = secret_of(cluster, observed, subject) else { continue };
        let last =
            under_way.iter().position(|progress| progress.subject == subject).map(|at| under_way.swap_remove(at));
        let step = if let Some(progress) = last.filter(|progress| progress.state.stage.is_some()) {
            next(cluster, &progress, now)
        } else {
            let asked = asked(cluster, authorities, subject, secret, &mut given);
            begin(cluster, authorities, observed, subject, asked, rollout, now)
        };
        let content = step.map(|step| Content::Rotation { subject, step });
        plan.steps.extend(content.map(|content| Step::Secret(Box::new(Draft { name: secret.name_any(), content }))));
    }
}

fn next(cluster: &Cluster, progress: &Progress, now: Timestamp) -> Option<Move> {
    let Progress { subject, state, waits, .. } = progress;
    let stage = state.stage?;
    let is_unwanted = state.requested.as_deref().is_some_and(|requested| cluster.rotate.rolls_back(requested));
    if is_unwanted
        && !state.rolling_back
        && let Some(back) = subject.back_from(stage)
    {
        // A key that signs already hands back at once; an authority first has its certificates replaced.
        let swap = *subject == Subject::ServiceAccountKey && back == Stage::Signing;
        return Some(Move::Enter { state: state.back(back, now), swap });
    }
    if !waits.is_empty() {
        return None;
    }
    let Some(next) = subject.after(stage) else { return Some(Move::Complete { state: state.in_stage(None, now) }) };
    Some(Move::Enter { state: state.in_stage(Some(next), now), swap: next == Stage::Signing })
}

/// A rotation begins only from a state in which all is well: what is broken before would be blamed on it.
fn begin(
    cluster: &Cluster,
    authorities: &Authorities,
    observed: &Observed,
    subject: Subject,
    asked: Asked,
    rollout: Option<&str>,
    now: Timestamp,
) -> Option<Move> {
    if !asked.waits(cluster, authorities, observed, subject, rollout, now).is_empty() {
        return None;
    }
    let (not_before, not_after) = valid_for(now, cluster.policy.authority_validity);
    let algorithm = match subject {
        Subject::Authority(_) => cluster.policy.authority_key_algorithm,
        Subject::ServiceAccountKey => cluster.policy.default_leaf().key_algorithm,
    };
    match asked {
        Asked::Nothing | Asked::Refused(_) => None,
        Asked::Renewal(given) => {
            let renewal = given.map_or(Renewal::Made { not_before, not_after }, Renewal::Given);
            Some(Move::Renew { renewal })
        }
        Asked::Rotation { requested, given } => {
            let successor = given.map_or(Successor::Made { algorithm, not_after }, Successor::Given);
            Some(Move::Begin { successor, not_before, state: State::begin(Some(requested), now) })
        }
    }
}

/// What has to be well before anything is replaced.
pub(super) fn waits_to_begin(
    cluster: &Cluster,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
) -> Vec<String> {
    let mut waits = vec![];
    if !matches!(observed.target.available, Some(Ok(()))) {
        waits.push(format!("the API server at {} to answer", cluster.endpoint));
    }
    let ready = observed.target.control_plane(cluster);
    let not_ready = cluster.nodes.iter().filter(|node| ready.and_then(|ready| ready.get(&node.name)) != Some(&true));
    waits.extend(not_ready.map(|node| format!("{} to be Ready", node.name)));
    if cluster.external_etcd().is_none() {
        let ailing = observed.target.ailing_members(cluster);
        waits.extend(ailing.map(|node| format!("etcd on {node} to be a healthy voter")));
    }
    waits.extend(rollout.map(str::to_owned));
    waits.extend(not_current(cluster, observed, now));
    waits
}
