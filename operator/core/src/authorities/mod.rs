//! The authorities and the service-account pair of a cluster, as they are read from their Secrets.

mod peer_keys;
mod service_account;
mod set;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

pub use peer_keys::PeerKeys;
pub use service_account::ServiceAccountKeys;
pub use set::{ABOVE, AuthoritySet, CROSS};

use crate::blocker::Blocker;
use crate::model::Cluster;
use crate::names;
use crate::observed::{Observed, Slot};
use crate::pki::AuthorityName;
use crate::rotation::{Stage, State, Subject};
use keyplane_crds::keys;
use keyplane_crds::reasons;

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
        let authorities = cluster.authority_names();
        let authorities = authorities.map(|name| (name, load_authority(cluster, name, observed).there()));
        Self::from_loaded(cluster, authorities.collect(), load_service_account(cluster, observed).there())
    }

    pub(crate) fn from_loaded(
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

    /// The annotation of machines' objects that lists what was revoked; nothing where nothing was.
    #[must_use]
    pub fn revoked_annotation(&self) -> Option<(String, String)> {
        let all: Vec<_> = self.all().flat_map(|(_, set)| set.revoked().iter().map(String::as_str)).collect();
        (!all.is_empty()).then(|| (keys::REVOKED_CAS_ANNOTATION.to_owned(), all.join(",")))
    }

    /// The keys of service-account tokens.
    #[must_use]
    pub fn service_account(&self) -> &ServiceAccountKeys {
        &self.service_account
    }
}

pub(crate) enum Loaded<T> {
    There(T),
    Missing,
    Blocked(Blocker),
}

impl<T> Loaded<T> {
    pub(crate) fn there(self) -> Option<T> {
        match self {
            Self::There(loaded) => Some(loaded),
            Self::Missing | Self::Blocked(_) => None,
        }
    }
}

pub(crate) fn load_authority(cluster: &Cluster, name: AuthorityName, observed: &Observed) -> Loaded<AuthoritySet> {
    let secret_name = names::authority_secret(&cluster.name, name);
    load(&cluster.name, &secret_name, observed, |secret| AuthoritySet::from_secret(&secret_name, secret))
}

pub(crate) fn load_service_account(cluster: &Cluster, observed: &Observed) -> Loaded<ServiceAccountKeys> {
    let secret_name = names::service_account_secret(&cluster.name);
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
                reason: reasons::CA_UNREADABLE,
                message: format!("Secret {name} can't be used: {problem}; restore it from a backup"),
            }),
        },
    }
}

/// The Secret of an authority or of the service-account key.
#[must_use]
pub fn secret_of<'a>(cluster: &Cluster, observed: &'a Observed, subject: Subject) -> Option<&'a Secret> {
    let name = match subject {
        Subject::Authority(AuthorityName::Etcd) if cluster.external_etcd().is_some() => return None,
        Subject::Authority(name) => names::authority_secret(&cluster.name, name),
        Subject::ServiceAccountKey => names::service_account_secret(&cluster.name),
    };
    observed.secrets.get(&name)
}

/// Whether something was revoked and not everybody has noticed yet: then nothing that depends on it can be waited for.
#[must_use]
pub fn is_revoking(cluster: &Cluster, observed: &Observed, subject: Subject) -> bool {
    let state = secret_of(cluster, observed, subject)
        .and_then(|secret| secret.annotations().get(keys::ROTATION_STATE_ANNOTATION));
    let state = state.and_then(|text| State::parse(text).ok());
    state.is_some_and(|state| state.stage == Some(Stage::Revoke))
}

/// [`is_revoking`], of any of them.
#[must_use]
pub fn is_revoking_any(cluster: &Cluster, observed: &Observed) -> bool {
    Subject::ALL.into_iter().any(|subject| is_revoking(cluster, observed, subject))
}
