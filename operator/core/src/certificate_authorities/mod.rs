//! The CAs and the service-account keys of a cluster, read from their Secrets.

mod peer_keys;
mod service_account;
mod set;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

pub use peer_keys::PeerKeys;
pub use service_account::ServiceAccountKeys;
pub use set::{CHAIN_KEYS, CROSS_SIGNED_KEY, CaSet};

use crate::blocker::Blocker;
use crate::model::Cluster;
use crate::names;
use crate::observed::{Observed, Slot};
use crate::pki::CaName;
use crate::rotation::{Stage, State, Subject};
use keyplane_crds::{keys, reasons};

/// All CAs and service-account keys of a cluster.
#[derive(Debug)]
pub struct ClusterCas {
    cluster: CaSet,
    front_proxy: CaSet,
    // `None` with an external etcd, which has its own CA.
    etcd: Option<CaSet>,
    service_account: ServiceAccountKeys,
}

impl ClusterCas {
    /// Loads the CAs and keys from the observed Secrets. Returns `None` while one of them is missing or unreadable.
    #[must_use]
    pub fn load(cluster: &Cluster, observed: &Observed) -> Option<Self> {
        let cas = cluster.ca_names().map(|name| (name, load_ca(cluster, name, observed).present()));
        Self::from_loaded(cluster, cas.collect(), load_service_account(cluster, observed).present())
    }

    pub(crate) fn from_loaded(
        cluster: &Cluster,
        mut cas: BTreeMap<CaName, Option<CaSet>>,
        service_account: Option<ServiceAccountKeys>,
    ) -> Option<Self> {
        let mut take = |name| cas.remove(&name).flatten();
        let (etcd, external) = (take(CaName::Etcd), cluster.external_etcd().is_some());
        Some(Self {
            cluster: take(CaName::Cluster)?,
            front_proxy: take(CaName::FrontProxy)?,
            etcd: if external { None } else { Some(etcd?) },
            service_account: service_account?,
        })
    }

    /// Returns the cluster CA, which signs certificates of the API server and its clients.
    #[must_use]
    pub fn cluster(&self) -> &CaSet {
        &self.cluster
    }

    /// Returns the trust bundle that clients use to verify the servers of the cluster.
    #[must_use]
    pub fn trust(&self) -> String {
        self.cluster.bundle()
    }

    /// Returns one of the CAs, or `None` for the CA of an external etcd.
    #[must_use]
    pub fn get(&self, name: CaName) -> Option<&CaSet> {
        match name {
            CaName::Cluster => Some(&self.cluster),
            CaName::Etcd => self.etcd.as_ref(),
            CaName::FrontProxy => Some(&self.front_proxy),
        }
    }

    /// Returns all CAs, in the order in which Keyplane creates them.
    pub fn all(&self) -> impl Iterator<Item = (CaName, &CaSet)> {
        CaName::ALL.into_iter().filter_map(|name| Some((name, self.get(name)?)))
    }

    /// Returns whether a CA or the service-account key is in rotation.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        let of_key = self.service_account.state().and_then(|state| state.stage);
        of_key.is_some() || self.all().any(|(_, set)| set.stage().is_some())
    }

    /// Returns the node annotation that lists the revoked CAs, or `None` if no CA was revoked.
    #[must_use]
    pub fn revoked_annotation(&self) -> Option<(String, String)> {
        let all: Vec<_> = self.all().flat_map(|(_, set)| set.revoked().iter().map(String::as_str)).collect();
        (!all.is_empty()).then(|| (keys::REVOKED_CAS_ANNOTATION.to_owned(), all.join(",")))
    }

    /// Returns the service-account keys.
    #[must_use]
    pub fn service_account(&self) -> &ServiceAccountKeys {
        &self.service_account
    }
}

pub(crate) enum Loaded<T> {
    Present(T),
    Missing,
    Blocked(Blocker),
}

impl<T> Loaded<T> {
    pub(crate) fn present(self) -> Option<T> {
        match self {
            Self::Present(loaded) => Some(loaded),
            Self::Missing | Self::Blocked(_) => None,
        }
    }
}

pub(crate) fn load_ca(cluster: &Cluster, name: CaName, observed: &Observed) -> Loaded<CaSet> {
    let secret_name = names::ca_secret(&cluster.name, name);
    load(&cluster.name, &secret_name, observed, |secret| CaSet::from_secret(&secret_name, secret))
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
            Ok(loaded) => Loaded::Present(loaded),
            Err(problem) => Loaded::Blocked(Blocker {
                reason: reasons::CA_UNREADABLE,
                message: format!("Secret {name} can't be used: {problem}; restore the Secret from a backup"),
            }),
        },
    }
}

/// Returns the Secret of a CA or of the service-account keys.
#[must_use]
pub fn secret_of<'a>(cluster: &Cluster, observed: &'a Observed, subject: Subject) -> Option<&'a Secret> {
    let name = match subject {
        Subject::CertificateAuthority(CaName::Etcd) if cluster.external_etcd().is_some() => return None,
        Subject::CertificateAuthority(name) => names::ca_secret(&cluster.name, name),
        Subject::ServiceAccountKey => names::service_account_secret(&cluster.name),
    };
    observed.secrets.get(&name)
}

/// Returns whether a revocation of this CA or key is in progress. Meanwhile, nothing waits for components that depend
/// on the CA or key, because not all of them trust the new one.
#[must_use]
pub fn is_revoking(cluster: &Cluster, observed: &Observed, subject: Subject) -> bool {
    let state = secret_of(cluster, observed, subject)
        .and_then(|secret| secret.annotations().get(keys::ROTATION_STATE_ANNOTATION));
    let state = state.and_then(|text| State::parse(text).ok());
    state.is_some_and(|state| state.stage == Some(Stage::Revoke))
}

/// Returns [`is_revoking`] for any CA or key.
#[must_use]
pub fn is_revoking_any(cluster: &Cluster, observed: &Observed) -> bool {
    Subject::ALL.into_iter().any(|subject| is_revoking(cluster, observed, subject))
}
