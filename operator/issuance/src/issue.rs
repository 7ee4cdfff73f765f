//! Makes what a plan says: keys, certificates, and the Secret around them. Work for a thread of its own, not for an
//! async one: an RSA key takes up to seconds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::ResourceExt;

use super::successor;
use crate::x509::{encryption_key, generate, issue, mint_authority, request};
use keyplane_core::authorities::Authorities;
use keyplane_core::inventory::{USER_ISSUER, user_certificate};
use keyplane_core::model::Cluster;
use keyplane_core::names;
use keyplane_core::objects;
use keyplane_core::observed::Observed;
use keyplane_core::pki::SecretText;
use keyplane_core::pki::{Authority, CertificateOrder, PkiError, PrivateKey};
use keyplane_core::plan::{Content, Draft, KeySource, Pair, PlannedLeaf, Source, secrets};
use keyplane_core::rotation::{Subject, reload};

/// Why a Secret could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// A key or certificate could not be made.
    #[error("Secret {name} could not be made: {source}")]
    Pki {
        /// The Secret.
        name: String,
        /// Why.
        source: PkiError,
    },
    /// The plan was made for other objects than these.
    #[error("Secret {name} could not be made: what it depends on has changed meanwhile")]
    Outdated {
        /// The Secret.
        name: String,
    },
}

/// Makes the Secret of a draft.
///
/// # Errors
/// If a key or certificate can't be made, or the draft is not one for these objects.
pub fn fulfil(draft: Draft, cluster: &Cluster, observed: &Observed) -> Result<SecretObject, IssuanceError> {
    let name = draft.name;
    let outdated = || IssuanceError::Outdated { name: name.clone() };
    let pki = |source| IssuanceError::Pki { name: name.clone(), source };
    let mut secret = match draft.content {
        Content::Authority { name: authority, algorithm, not_before, not_after } => {
            let made = mint_authority(authority.common_name(), algorithm, not_before, not_after).map_err(pki)?;
            successor::first(cluster, authority, &name, &made)
        }
        Content::GivenAuthority { name: authority, authority: given } => {
            successor::first(cluster, authority, &name, &given)
        }
        Content::ServiceAccountKey { algorithm } => {
            let key = generate(algorithm).map_err(pki)?;
            let data = BTreeMap::from([
                ("tls.crt".to_owned(), key.public_key_pem()),
                ("tls.key".to_owned(), key.pem().to_owned()),
            ]);
            let type_ = names::CLUSTER_API_SECRET_TYPE;
            let mut secret = objects::secret(cluster, name.clone(), None, type_, data, []);
            secret.annotations_mut().extend(cluster.rotate.of(Subject::ServiceAccountKey).marks());
            secret.annotations_mut().extend(cluster.rotate.revocation_of(Subject::ServiceAccountKey).marks());
            secret
        }
        Content::Rotation { subject, step } => {
            let found = observed.secrets.get(&name).ok_or_else(outdated)?;
            successor::fulfil(cluster, subject, step, &name, found).map_err(pki)?
        }
        Content::Requests { asked, dropped, .. } => {
            let make = |order: &CertificateOrder, algorithm| {
                let key = generate(algorithm)?;
                let request = request(&order.subject, &order.alternative_names, &key)?;
                Ok((key.pem().to_owned(), request))
            };
            secrets::pending(cluster, &name, observed.secrets.get(&name), asked, &dropped, make).map_err(pki)?
        }
        Content::Own { sources } => secrets::own_credential(cluster, sources),
        Content::Encryption { state, .. } => {
            secrets::encryption(cluster, observed, &state, encryption_key).map_err(pki)?.ok_or_else(outdated)?
        }
        Content::Node { node, leaves } => {
            let authorities = Authorities::load(cluster, observed).ok_or_else(outdated)?;
            let node = cluster.machines().find(|other| other.name == node).ok_or_else(outdated)?;
            let given = secrets::given_files(cluster, observed).map_err(|_| outdated())?;
            let mut pairs = BTreeMap::new();
            for planned in leaves {
                let leaf = planned.leaf.name;
                let issuer = authorities.get(planned.leaf.issuer).ok_or_else(outdated)?.issuer_of(planned.leaf);
                if let Some(pair) = pair(planned, issuer).map_err(pki)? {
                    pairs.insert(leaf, pair);
                }
            }
            let mut secret = secrets::node(cluster, node, &authorities, &given, &pairs);
            // Who reads a file when it starts and never again is started anew once it has changed.
            if let Some(before) = observed.secrets.get(&name) {
                let marks = reload::marks(&files(before), &files(&secret));
                secret.annotations_mut().extend(marks);
            }
            secret
        }
        Content::WorkerCredential { node, source } => {
            let authorities = Authorities::load(cluster, observed).ok_or_else(outdated)?;
            let issued = issued("kubelet.conf", source, authorities.cluster().issuer(false)).map_err(pki)?;
            secrets::worker_credential(cluster, &node, &authorities, observed, &issued.ok_or_else(outdated)?)
        }
        Content::Kubeconfig { leaf: planned } => {
            let authorities = Authorities::load(cluster, observed).ok_or_else(outdated)?;
            let first = cluster.nodes.first().ok_or_else(outdated)?;
            let leaf = planned.leaf;
            let issuer = authorities.get(leaf.issuer).ok_or_else(outdated)?.issuer_of(leaf);
            let pair = pair(planned, issuer).map_err(pki)?.ok_or_else(outdated)?;
            secrets::user_kubeconfig(cluster, first, leaf, &authorities, &pair)
        }
        Content::User { user, source } => {
            let authorities = Authorities::load(cluster, observed).ok_or_else(outdated)?;
            let user = cluster.users.iter().find(|other| other.name == user).ok_or_else(outdated)?;
            let issuer = authorities.get(USER_ISSUER).ok_or_else(outdated)?.issuer(false);
            let issued = issued(&user_certificate(&user.name), source, issuer).map_err(pki)?;
            secrets::users(cluster, user, &authorities, &issued.ok_or_else(outdated)?)
        }
    };
    let found = observed.secrets.get(&name).map(|found| &found.metadata);
    secret.metadata = objects::onto(found, secret.metadata);
    Ok(secret)
}

fn files(secret: &SecretObject) -> BTreeMap<String, &[u8]> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.as_slice())).collect()
}

fn pair(planned: PlannedLeaf, issuer: &Authority) -> Result<Option<Pair>, PkiError> {
    issued(planned.leaf.name, planned.source, issuer)
}

fn issued(certificate: &str, source: Source, issuer: &Authority) -> Result<Option<Pair>, PkiError> {
    match source {
        Source::Keep(pair) | Source::Take { pair, .. } => Ok(Some(pair)),
        Source::KubeletsOwn => Ok(None),
        Source::Issue { order, key, .. } => {
            let key = match key {
                KeySource::New(algorithm) => generate(algorithm)?,
                KeySource::Keep(pem) => PrivateKey::from_pem(certificate, &pem.0)?,
            };
            let certificate = issue(&order, &key, issuer)?;
            Ok(Some(Pair { certificate, key: SecretText(key.pem().to_owned()) }))
        }
    }
}
