//! A target's etcd: who is in it, and the next change of its membership.
//!
//! A task beside the session with the API server, as the API server needs etcd and not the other way round: the first
//! node's etcd can be asked before any API server answers, and while none does.

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

use super::{Brief, Briefed, Findings, credentials};
use crate::etcd_client::{Credentials, EtcdClient, EtcdError, gives_a_sign_of_life};
use crate::target_client::CLIENT_VALIDITY;
use keyplane_client::events::Events;
use keyplane_core::etcd::{Action, Answer, Declared, Member, View, Wait, merge, next_action, peer_url};
use keyplane_core::observed::EtcdFacts;

/// How often members are asked while all is well: a lost one is seen before its Node is no longer Ready.
const QUIET: Duration = Duration::from_secs(20);
/// How often while something is under way, or nobody answers: somebody may be waiting for it, and no component of another
/// machine is to be started anew while a member is lost.
const BUSY: Duration = Duration::from_secs(4);
/// After a change the members tell each other first.
const SETTLE: Duration = Duration::from_secs(1);

/// The task's parts.
pub(super) struct Membership {
    pub(super) briefs: watch::Receiver<Arc<Brief>>,
    pub(super) findings: Findings,
    pub(super) management: Client,
    pub(super) events: Events,
    /// When learners that have not started were first seen.
    pub(super) learners_since: BTreeMap<u64, Timestamp>,
}

/// Clients of the members, by address. Connections are kept.
struct Dialled {
    credentials: Credentials,
    clients: BTreeMap<IpAddr, EtcdClient>,
}

impl Dialled {
    fn client(&mut self, address: IpAddr) -> Result<EtcdClient, EtcdError> {
        if let Some(client) = self.clients.get(&address) {
            return Ok(client.clone());
        }
        let client = EtcdClient::new(address, &self.credentials)?;
        self.clients.insert(address, client.clone());
        Ok(client)
    }
}

impl Briefed for Membership {
    fn briefs(&self) -> watch::Receiver<Arc<Brief>> {
        self.briefs.clone()
    }

    /// Works until the client certificate is to be renewed, or there is none.
    async fn work(&mut self, brief: &Brief) {
        if brief.cluster.external_etcd().is_some() {
            return std::future::pending().await;
        }
        let credentials = match credentials::etcd(&self.management, brief).await {
            Ok(credentials) => credentials,
            Err(unavailable) => {
                self.findings.learn(|facts| facts.etcd = Some(Err(unavailable.message)));
                return sleep(QUIET).await;
            }
        };
        let renewal = Instant::now() + CLIENT_VALIDITY / 2;
        let mut dialled = Dialled { credentials, clients: BTreeMap::new() };
        let mut members = vec![];
        while Instant::now() < renewal {
            let answers = ask(brief, &members, &mut dialled).await;
            let pause = match merge(&answers) {
                View::Silent => {
                    self.findings.learn(|facts| facts.etcd = Some(Err(silent(brief))));
                    BUSY
                }
                View::Split(groups) => {
                    let why = format!(
                        "these nodes are not in one etcd: {}; take the files of the one that is wrong off its machine, \
                         or the machine off the network",
                        groups.join(" / ")
                    );
                    self.findings.learn(|facts| facts.etcd = Some(Err(why)));
                    BUSY
                }
                View::Members { members: seen, confirmed } => {
                    members.clone_from(&seen);
                    self.go_on(brief, seen, confirmed, &answers, &mut dialled).await
                }
            };
            sleep(pause).await;
        }
    }
}

impl Membership {
    /// Makes the next change, and says how long to wait then.
    async fn go_on(
        &mut self,
        brief: &Brief,
        members: Vec<Member>,
        confirmed: bool,
        answers: &BTreeMap<String, Answer>,
        dialled: &mut Dialled,
    ) -> Duration {
        let now = Timestamp::now();
        self.learners_since.retain(|id, _| members.iter().any(|member| member.id == *id && !member.has_started()));
        for learner in members.iter().filter(|member| member.learner && !member.has_started()) {
            self.learners_since.entry(learner.id).or_insert(now);
        }
        let action = if confirmed {
            next_action(&declared(brief, &members).await, &members, &self.learners_since, now)
        } else {
            Action::Wait(Wait::NoMajority)
        };
        let tell = |waits: Option<String>| {
            let members = members.clone();
            self.findings.learn(|facts| facts.etcd = Some(Ok(EtcdFacts { members, confirmed, waits })));
        };
        let (reason, done) = match &action {
            Action::Done => {
                tell(None);
                let is_quiet = !brief.is_rotating && members.iter().all(|member| member.up);
                return if is_quiet { QUIET } else { BUSY };
            }
            Action::Wait(wait) => {
                tell(Some(wait.message()));
                return BUSY;
            }
            Action::AddLearner { node, .. } => {
                (reasons::ETCD_LEARNER_ADDED, format!("added {node} to etcd, without a vote until it is in sync"))
            }
            Action::Promote { name, .. } => (reasons::ETCD_MEMBER_PROMOTED, format!("gave {name} its vote in etcd")),
            Action::Remove { name, why, .. } => {
                (reasons::ETCD_MEMBER_REMOVED, format!("removed {name} from etcd: {why}"))
            }
        };
        match self.perform(&action, brief, &members, answers, dialled).await {
            Ok(()) => {
                tracing::info!(cluster = %self.findings.object, note = done, "etcd's membership changed");
                let (Action::AddLearner { node: name, .. }
                | Action::Promote { name, .. }
                | Action::Remove { name, .. }) = action
                else {
                    return SETTLE;
                };
                let other =
                    ObjectReference { kind: Some("Node".to_owned()), name: Some(name), ..ObjectReference::default() };
                self.events.normal_about(&brief.reference, Some(other), reason, "ChangeMembership", &done).await;
                SETTLE
            }
            Err(EtcdError::NotInSync) => {
                tell(Some("a learner is not in sync with etcd's leader yet".to_owned()));
                BUSY
            }
            Err(error) => {
                tracing::info!(cluster = %self.findings.object, note = done, %error, "etcd's membership not changed");
                tell(Some(format!("not yet {done}: {error}")));
                BUSY
            }
        }
    }

    /// Asks a voter that is up; not the one that is to go, if there is another.
    async fn perform(
        &self,
        action: &Action,
        brief: &Brief,
        members: &[Member],
        answers: &BTreeMap<String, Answer>,
        dialled: &mut Dialled,
    ) -> Result<(), EtcdError> {
        let going = if let Action::Remove { id, .. } = action { Some(*id) } else { None };
        let voters = members.iter().filter(|member| member.up && !member.learner);
        let voter = voters.min_by_key(|member| Some(member.id) == going);
        let address = voter.and_then(|voter| {
            let (node, _) = answers.iter().find(|(_, answer)| answer.member_id == voter.id)?;
            addresses(brief, members).remove(node)
        });
        let address = address.ok_or_else(|| EtcdError::NoAnswer("no voter is up".to_owned()))?;
        let client = dialled.client(address)?;
        match action {
            Action::AddLearner { peer_url, .. } => client.add_learner(peer_url.clone()).await,
            Action::Promote { id, .. } => client.promote(*id).await,
            Action::Remove { id, .. } => client.remove(*id).await,
            Action::Wait(_) | Action::Done => Ok(()),
        }
    }
}

/// What there is to be asked: the declared nodes, and members that are no longer declared.
fn addresses(brief: &Brief, members: &[Member]) -> BTreeMap<String, IpAddr> {
    let nodes = &brief.cluster.nodes;
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

async fn ask(brief: &Brief, members: &[Member], dialled: &mut Dialled) -> BTreeMap<String, Answer> {
    let mut asked = vec![];
    for (node, address) in addresses(brief, members) {
        if let Ok(client) = dialled.client(address) {
            asked.push(async move { (node, client.ask().await) });
        }
    }
    let answers = join_all(asked).await.into_iter().filter_map(|(node, answer)| match answer {
        Ok(answer) => Some((node, answer)),
        Err(error) => {
            tracing::debug!(cluster = brief.cluster.name, node, %error, "etcd member");
            None
        }
    });
    answers.collect()
}

/// The declared nodes. Only of those that have not joined it matters whether they are there.
async fn declared(brief: &Brief, members: &[Member]) -> Vec<Declared> {
    let nodes = brief.cluster.nodes.iter().map(|node| async {
        let url = peer_url(node.advertise_address);
        let joined = members.iter().any(|member| member.is_of(&node.name, &url));
        let alive = if joined { None } else { Some(gives_a_sign_of_life(node.advertise_address).await) };
        Declared { name: node.name.clone(), peer_url: url, alive }
    });
    join_all(nodes).await
}

fn silent(brief: &Brief) -> String {
    let nodes = brief.cluster.nodes.iter();
    let addresses: Vec<_> = nodes.map(|node| keyplane_core::etcd::client_url(node.advertise_address)).collect();
    format!(
        "no member of etcd answers Keyplane at {}: are the machines started, and is that port open to Keyplane?",
        addresses.join(", ")
    )
}
