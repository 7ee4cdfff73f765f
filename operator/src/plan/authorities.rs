//! The authorities and the service-account pair: what everything else is made from, and what is never made twice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::Layout;

use super::observed::Slot;
use super::service_account::ServiceAccountKeys;
use super::{AuthoritySet, Blocker, Content, Draft, Observed, Plan, Step, given_authorities, objects};
use crate::cluster::Cluster;
use crate::pki::inventory::AuthorityName;
use crate::pki::places::pki_file;
use crate::pki::{first_certificate, valid_for};

/// The authorities and the service-account pair of a cluster, all of them.
#[derive(Debug)]
pub struct Authorities {
    cluster: AuthoritySet,
    front_proxy: AuthoritySet,
    // An external etcd brings its own.
    etcd: Option<AuthoritySet>,
    service_account: ServiceAccountKeys,
}

impl Authorities {
    /// Takes them from the Secrets that there are; nothing while one is missing or can't be read.
    #[must_use]
    pub fn load(cluster: &Cluster, observed: &Observed) -> Option<Self> {
        let authorities = AuthorityName::of(cluster);
        let authorities = authorities.map(|name| (name, load_authority(cluster, name, observed).there()));
        Self::from_loaded(cluster, authorities.collect(), load_service_account(cluster, observed).there())
    }

    fn from_loaded(
        cluster: &Cluster,
        mut authorities: BTreeMap<AuthorityName, Option<AuthoritySet>>,
        service_account: Option<ServiceAccountKeys>,
    ) -> Option<Self> {
        let mut take = |name| authorities.remove(&name).flatten();
        let (etcd, external) = (take(AuthorityName::Etcd), cluster.external_etcd().is_some());
        Some(Self {
            cluster: take(AuthorityName::Cluster)?,
            front_proxy: take(AuthorityName::FrontProxy)?,
            etcd: if external { None } else { Some(etcd?) },
            service_account: service_account?,
        })
    }

    /// The cluster's own, which signs for its API.
    #[must_use]
    pub fn cluster(&self) -> &AuthoritySet {
        &self.cluster
    }

    /// The bundle that the cluster's servers are verified with.
    #[must_use]
    pub fn trust(&self) -> String {
        self.cluster.bundle()
    }

    /// One of them; nothing for the authority of an external etcd.
    #[must_use]
    pub fn get(&self, name: AuthorityName) -> Option<&AuthoritySet> {
        match name {
            AuthorityName::Cluster => Some(&self.cluster),
            AuthorityName::Etcd => self.etcd.as_ref(),
            AuthorityName::FrontProxy => Some(&self.front_proxy),
        }
    }

    /// All of them, in the order in which they are made.
    pub fn all(&self) -> impl Iterator<Item = (AuthorityName, &AuthoritySet)> {
        AuthorityName::ALL.into_iter().filter_map(|name| Some((name, self.get(name)?)))
    }

    /// Whether one of them or the service-account key is being rotated.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        let of_key = self.service_account.state().and_then(|state| state.stage);
        of_key.is_some() || self.all().any(|(_, set)| set.stage().is_some())
    }

    /// The keys of service-account tokens.
    #[must_use]
    pub fn service_account(&self) -> &ServiceAccountKeys {
        &self.service_account
    }
}

enum Loaded<T> {
    There(T),
    Missing,
    Blocked(Blocker),
}

impl<T> Loaded<T> {
    fn there(self) -> Option<T> {
        match self {
            Self::There(loaded) => Some(loaded),
            Self::Missing | Self::Blocked(_) => None,
        }
    }
}

/// Plans them; gives them back once all are there.
pub(super) fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) -> Option<Authorities> {
    let mut authorities = BTreeMap::new();
    let mut given = given_authorities::given(cluster, observed, now);
    for name in AuthorityName::of(cluster) {
        let (not_before, not_after) = valid_for(now, cluster.policy.authority_validity);
        let algorithm = cluster.policy.authority_key_algorithm;
        let content = match given.remove(&name) {
            None => Ok(Content::Authority { name, algorithm, not_before, not_after }),
            Some(given) => given.map(|authority| Content::GivenAuthority { name, authority: Box::new(authority) }),
        };
        let loaded = load_authority(cluster, name, observed);
        let secret = objects::authority_secret(&cluster.name, name);
        authorities.insert(name, there_or_planned(loaded, cluster, observed, secret, content, plan));
    }
    let content = Ok(Content::ServiceAccountKey { algorithm: cluster.policy.default_leaf().key_algorithm });
    let loaded = load_service_account(cluster, observed);
    let secret = objects::service_account_secret(&cluster.name);
    let service_account = there_or_planned(loaded, cluster, observed, secret, content, plan);
    Authorities::from_loaded(cluster, authorities, service_account)
}

/// What is there; what is missing is planned, and what is in the way is told.
fn there_or_planned<T>(
    loaded: Loaded<T>,
    cluster: &Cluster,
    observed: &Observed,
    secret: String,
    content: Result<Content, Blocker>,
    plan: &mut Plan,
) -> Option<T> {
    match (loaded, content) {
        (Loaded::There(loaded), _) => return Some(loaded),
        (Loaded::Blocked(blocker), _) | (Loaded::Missing, Err(blocker)) => plan.blockers.push(blocker),
        (Loaded::Missing, Ok(content)) => mint(cluster, observed, secret, content, plan),
    }
    None
}

/// Makes a key, unless there are signs that it was there before: then a new one would cut every machine off, and only
/// a person can know whether that is wanted.
fn mint(cluster: &Cluster, observed: &Observed, secret: String, content: Content, plan: &mut Plan) {
    let nodes = cluster.nodes.iter().map(|node| objects::node_secret(&cluster.name, &node.name));
    let traces = nodes.chain([objects::kubeconfig_secret(&cluster.name)]);
    let trace = traces.filter(|name| matches!(observed.secret(&cluster.name, name), Slot::Ours(_))).min();
    // The status lists certificates only once all authorities were there.
    let known = !observed.status.certificates.is_empty();
    let is_back = trace.as_ref().is_some_and(|trace| is_a_copy(observed, trace, &content));
    if trace.is_none() && !known || is_back {
        plan.steps.push(Step::Secret(Box::new(Draft { name: secret, content })));
        return;
    }
    let copy = match &trace {
        Some(trace) if trace.ends_with("-pki") => format!("Secret {trace} still has a copy of it, under "),
        _ => "a control-plane machine still has a copy of it, in ".to_owned(),
    };
    let layout = cluster.layout();
    let (certificate_key, private_key) = copies(layout, &content, trace.is_some_and(|trace| trace.ends_with("-pki")));
    plan.blockers.push(Blocker {
        reason: "AuthorityMissing",
        message: format!(
            "Secret {secret} is gone, and the cluster lives on what it held, so no new one is made: restore it from a \
             backup with its labels ({copy}{certificate_key} and {private_key}); if the cluster is not in use, delete \
             this ClusterSpec with its Secrets and make it again"
        ),
    });
}

/// Whether what is given is what the machine has.
fn is_a_copy(observed: &Observed, node_secret: &str, content: &Content) -> bool {
    let Content::GivenAuthority { name, authority } = content else { return false };
    let key = format!("{}.crt", name.file().replace('/', "-"));
    let copy = observed.secrets.get(node_secret).and_then(|secret| objects::text(secret, &key));
    let copy = copy.and_then(|copy| first_certificate(node_secret, copy).ok());
    copy.is_some_and(|copy| authority.facts().is_renewal_of(&copy))
}

/// Where the certificate (or public key) and the private key lie on a node: as key in the node's Secret, or as path.
fn copies(layout: Layout, content: &Content, in_secret: bool) -> (String, String) {
    let file = match content {
        Content::Authority { name, .. } | Content::GivenAuthority { name, .. } => name.file(),
        _ => "sa",
    };
    let ending = if file == "sa" { "pub" } else { "crt" };
    if in_secret {
        let key = file.replace('/', "-");
        (format!("{key}.{ending}"), format!("{key}.key"))
    } else {
        let path = |ending| pki_file(layout, &format!("{file}.{ending}"));
        (path(ending), path("key"))
    }
}

fn load_authority(cluster: &Cluster, name: AuthorityName, observed: &Observed) -> Loaded<AuthoritySet> {
    let secret_name = objects::authority_secret(&cluster.name, name);
    load(&cluster.name, &secret_name, observed, |secret| AuthoritySet::from_secret(&secret_name, secret))
}

fn load_service_account(cluster: &Cluster, observed: &Observed) -> Loaded<ServiceAccountKeys> {
    let secret_name = objects::service_account_secret(&cluster.name);
    load(&cluster.name, &secret_name, observed, |secret| ServiceAccountKeys::from_secret(&secret_name, secret))
}

fn load<T>(
    cluster: &str,
    name: &str,
    observed: &Observed,
    read: impl FnOnce(&Secret) -> Result<T, String>,
) -> Loaded<T> {
    match observed.secret(cluster, name) {
        Slot::Free => Loaded::Missing,
        Slot::Foreign(blocker) => Loaded::Blocked(blocker),
        Slot::Ours(secret) => match read(secret) {
            Ok(loaded) => Loaded::There(loaded),
            Err(problem) => Loaded::Blocked(Blocker {
                reason: "AuthorityUnreadable",
                message: format!("Secret {name} can't be used: {problem}; restore it from a backup"),
            }),
        },
    }
}
