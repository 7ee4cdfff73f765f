//! Membership of a target cluster's etcd: observes the members, and makes the next change.
//!
//! A task beside the session with the API server, because the API server needs etcd and not vice versa: etcd can be
//! queried while no API server answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{SessionSpec, SessionTask, TargetStatus, credentials};
use crate::etcd_client::{Credentials, EtcdClient, EtcdError, is_reachable};
use crate::target_client::CLIENT_VALIDITY;
use keyplane_client::events::Events;
use keyplane_core::etcd::{Action, Answer, Declared, Member, View, Wait, merge, next_action, peer_url};
use keyplane_core::observed::EtcdFacts;

/// Query interval while all members are healthy: a lost member is seen before its Node is no longer Ready.
const HEALTHY_PERIOD: Duration = Duration::from_secs(20);
/// Query interval during a change, or while no member answers: a user may be waiting, and no component of another node
/// may be restarted while a member is lost.
const BUSY_PERIOD: Duration = Duration::from_secs(4);
/// Delay after a change, in which the members learn of it.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The membership task of one target cluster.
pub(super) struct Membership {
    pub(super) specs: watch::Receiver<Arc<SessionSpec>>,
    pub(super) target_status: TargetStatus,
    pub(super) management: Client,
    pub(super) events: Events,
    /// When learners that have not started were first seen.
    pub(super) learners_since: BTreeMap<u64, Timestamp>,
}

/// Clients of the members, by address.
struct Connections {
    credentials: Credentials,
    clients: BTreeMap<IpAddr, EtcdClient>,
}

impl Connections {
    fn client(&mut self, address: IpAddr) -> Result<EtcdClient, EtcdError> {
        if let Some(client) = self.clients.get(&address) {
            return Ok(client.clone());
        }
        let client = EtcdClient::new(address, &self.credentials)?;
        self.clients.insert(address, client.clone());
        Ok(client)
    }
}

impl SessionTask for Membership {
    fn specs(&self) -> watch::Receiver<Arc<SessionSpec>> {
        self.specs.clone()
    }

    /// Works until the client certificate must be renewed, or is not available.
    async fn work(&mut self, spec: &SessionSpec) {
        if spec.cluster.external_etcd().is_some() {
            return std::future::pending().await;
        }
        let credentials = match credentials::etcd(&self.management, spec).await {
            Ok(credentials) => credentials,
            Err(unavailable) => {
                self.target_status.update(|facts| facts.etcd = Some(Err(unavailable.message)));
                return sleep(HEALTHY_PERIOD).await;
            }
        };
        let renewal = Instant::now() + CLIENT_VALIDITY / 2;
        let mut connections = Connections { credentials, clients: BTreeMap::new() };
        let mut members = vec![];
        while Instant::now() < renewal {
            let answers = query(spec, &members, &mut connections).await;
            let pause = match merge(&answers) {
                View::Silent => {
                    self.target_status.update(|facts| facts.etcd = Some(Err(silent(spec))));
                    BUSY_PERIOD
                }
                View::Split(groups) => {
                    let why = format!(
                        "the nodes are in different etcd clusters: {}; remove the etcd data of the wrong member from its \
                         node, or disconnect the node",
                        groups.join(" / ")
                    );
                    self.target_status.update(|facts| facts.etcd = Some(Err(why)));
                    BUSY_PERIOD
                }
                View::Members { members: seen, confirmed } => {
                    members.clone_from(&seen);
                    self.change_membership(spec, seen, confirmed, &answers, &mut connections).await
                }
            };
            sleep(pause).await;
        }
    }
}

impl Membership {
    /// Makes the next change; returns the delay until the next query.
    async fn change_membership(
        &mut self,
        spec: &SessionSpec,
        members: Vec<Member>,
        confirmed: bool,
        answers: &BTreeMap<String, Answer>,
        connections: &mut Connections,
    ) -> Duration {
        let now = Timestamp::now();
        self.learners_since.retain(|id, _| members.iter().any(|member| member.id == *id && !member.has_started()));
        for learner in members.iter().filter(|member| member.learner && !member.has_started()) {
            self.learners_since.entry(learner.id).or_insert(now);
        }
        let action = if confirmed {
            next_action(&declared(spec, &members).await, &members, &self.learners_since, now)
        } else {
            Action::Wait(Wait::NoMajority)
        };
        let report = |waits: Option<String>| {
            let members = members.clone();
            self.target_status.update(|facts| facts.etcd = Some(Ok(EtcdFacts { members, confirmed, waits })));
        };
        let (reason, done) = match &action {
            Action::Done => {
                report(None);
                let is_quiet = !spec.is_rotating && members.iter().all(|member| member.up);
                return if is_quiet { HEALTHY_PERIOD } else { BUSY_PERIOD };
            }
            Action::Wait(wait) => {
                report(Some(wait.message()));
                return BUSY_PERIOD;
            }
            Action::AddLearner { node, .. } => {
                (reasons::ETCD_LEARNER_ADDED, format!("added {node} to etcd as a learner"))
            }
            Action::Promote { name, .. } => {
                (reasons::ETCD_MEMBER_PROMOTED, format!("promoted learner {name} to voting member"))
            }
            Action::Remove { name, why, .. } => {
                (reasons::ETCD_MEMBER_REMOVED, format!("removed {name} from etcd: {why}"))
            }
        };
        match self.perform(&action, spec, &members, answers, connections).await {
            Ok(()) => {
                tracing::info!(cluster = %self.target_status.object, note = done, "changed etcd membership");
                let (Action::AddLearner { node: name, .. }
                | Action::Promote { name, .. }
                | Action::Remove { name, .. }) = action
                else {
                    return SETTLE_TIME;
                };
                let other =
                    ObjectReference { kind: Some("Node".to_owned()), name: Some(name), ..ObjectReference::default() };
                self.events.normal_about(&spec.reference, Some(other), reason, "ChangeMembership", &done).await;
                SETTLE_TIME
            }
            Err(EtcdError::NotInSync) => {
                report(Some("a learner is not in sync with etcd's leader yet".to_owned()));
                BUSY_PERIOD
            }
            Err(error) => {
                tracing::info!(cluster = %self.target_status.object, note = done, %error, "changing etcd membership failed");
                report(Some(format!("not yet {done}: {error}")));
                BUSY_PERIOD
            }
        }
    }

    /// Sends the change to an available voting member; to the member that is removed only if there is no other.
    async fn perform(
        &self,
        action: &Action,
        spec: &SessionSpec,
        members: &[Member],
        answers: &BTreeMap<String, Answer>,
        connections: &mut Connections,
    ) -> Result<(), EtcdError> {
        let removed = if let Action::Remove { id, .. } = action { Some(*id) } else { None };
        let voters = members.iter().filter(|member| member.up && !member.learner);
        let voter = voters.min_by_key(|member| Some(member.id) == removed);
        let address = voter.and_then(|voter| {
            let (node, _) = answers.iter().find(|(_, answer)| answer.member_id == voter.id)?;
            addresses(spec, members).remove(node)
        });
        let address = address.ok_or_else(|| EtcdError::NoAnswer("no voting member is available".to_owned()))?;
        let client = connections.client(address)?;
        match action {
            Action::AddLearner { peer_url, .. } => client.add_learner(peer_url.clone()).await,
            Action::Promote { id, .. } => client.promote(*id).await,
            Action::Remove { id, .. } => client.remove(*id).await,
            Action::Wait(_) | Action::Done => Ok(()),
        }
    }
}

/// Returns the addresses of the declared nodes, and of members that are no longer declared.
fn addresses(spec: &SessionSpec, members: &[Member]) -> BTreeMap<String, IpAddr> {
    let nodes = &spec.cluster.nodes;
    let mut addresses: BTreeMap<_, _> = nodes.iter().map(|node| (node.name.clone(), node.advertise_address)).collect();
    for member in members {
        let hosts = member.peer_urls.iter().filter_map(|url| url.parse::<http::Uri>().ok()?.host().map(str::to_owned));
        for host in hosts {
            if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
                && !addresses.values().any(|known| *known == address)
            {
                addresses.insert(member.label().to_owned(), address);
            }
        }
    }
    addresses
}

async fn query(spec: &SessionSpec, members: &[Member], connections: &mut Connections) -> BTreeMap<String, Answer> {
    let mut queries = vec![];
    for (node, address) in addresses(spec, members) {
        if let Ok(client) = connections.client(address) {
            queries.push(async move { (node, client.query().await) });
        }
    }
    let answers = join_all(queries).await.into_iter().filter_map(|(node, answer)| match answer {
        Ok(answer) => Some((node, answer)),
        Err(error) => {
            tracing::debug!(cluster = spec.cluster.name, node, %error, "etcd member");
            None
        }
    });
    answers.collect()
}

/// Returns the declared nodes. Only nodes that have not joined are checked for reachability.
async fn declared(spec: &SessionSpec, members: &[Member]) -> Vec<Declared> {
    let nodes = spec.cluster.nodes.iter().map(|node| async {
        let url = peer_url(node.advertise_address);
        let joined = members.iter().any(|member| member.is_of(&node.name, &url));
        let alive = if joined { None } else { Some(is_reachable(node.advertise_address).await) };
        Declared { name: node.name.clone(), peer_url: url, alive }
    });
    join_all(nodes).await
}

fn silent(spec: &SessionSpec) -> String {
    let nodes = spec.cluster.nodes.iter();
    let addresses: Vec<_> = nodes.map(|node| keyplane_core::etcd::client_url(node.advertise_address)).collect();
    format!(
        "no etcd member answers at {}: check that the nodes are running and that Keyplane can reach the port",
        addresses.join(", ")
    )
}
