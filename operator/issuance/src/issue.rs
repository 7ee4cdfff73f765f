//! Executes the issuance steps of a plan: generates keys, issues certificates, and builds their Secret. An RSA key
//! takes up to seconds, so async code calls this module on a blocking thread.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::ResourceExt;

use super::successor;
use crate::x509::{encryption_key, generate, generate_ca, issue, request};
use keyplane_core::certificate_authorities::ClusterCas;
use keyplane_core::inventory::{USER_ISSUER, user_certificate};
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::pki::{CertificateAuthority, CertificateTemplate, PkiError, PrivateKey, SecretText};
use keyplane_core::plan::{Content, Draft, KeySource, Pair, PlannedLeaf, Source, secrets};
use keyplane_core::rotation::{Subject, reload};
use keyplane_core::{names, objects};

/// The reason why a Secret can't be built.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// The generation of a key or certificate failed.
    #[error("Secret {name} can't be built: {source}")]
    Pki {
        /// The name of the Secret.
        name: String,
        /// The cause.
        source: PkiError,
    },
    /// The plan does not match the observed objects.
    #[error("Secret {name} can't be built: objects that it depends on have changed since the plan")]
    Outdated {
        /// The name of the Secret.
        name: String,
    },
}

/// Builds the Secret of a draft.
///
/// # Errors
/// If the generation of a key or certificate fails, or the draft does not match the observed objects.
pub fn build_secret(draft: Draft, cluster: &Cluster, observed: &Observed) -> Result<SecretObject, IssuanceError> {
    let name = draft.name;
    let outdated = || IssuanceError::Outdated { name: name.clone() };
    let pki = |source| IssuanceError::Pki { name: name.clone(), source };
    let mut secret = match draft.content {
        Content::CertificateAuthority { name: ca, algorithm, not_before, not_after } => {
            let new_ca = generate_ca(ca.common_name(), algorithm, not_before, not_after).map_err(pki)?;
            successor::first(cluster, ca, &name, &new_ca)
        }
        Content::UserProvidedCa { name: ca, ca: user_provided } => successor::first(cluster, ca, &name, &user_provided),
        Content::ServiceAccountKey { algorithm } => {
            let key = generate(algorithm).map_err(pki)?;
            let data = BTreeMap::from([
                ("tls.crt".to_owned(), key.public_key_pem()),
                ("tls.key".to_owned(), key.pem().to_owned()),
            ]);
            let type_ = names::CLUSTER_API_SECRET_TYPE;
            let mut secret = objects::secret(cluster, name.clone(), None, type_, data, []);
            secret.annotations_mut().extend(cluster.rotate.of(Subject::ServiceAccountKey).answer_annotations());
            secret
                .annotations_mut()
                .extend(cluster.rotate.revocation_of(Subject::ServiceAccountKey).answer_annotations());
            secret
        }
        Content::Rotation { subject, step } => {
            let found = observed.secrets.get(&name).ok_or_else(outdated)?;
            successor::apply_move(cluster, subject, step, &name, found).map_err(pki)?
        }
        Content::Requests { new_keys, dropped, .. } => {
            let make = |template: &CertificateTemplate, algorithm| {
                let key = generate(algorithm)?;
                let request = request(&template.subject, &template.alternative_names, &key)?;
                Ok((key.pem().to_owned(), request))
            };
            secrets::pending(cluster, &name, observed.secrets.get(&name), new_keys, &dropped, make).map_err(pki)?
        }
        Content::Own { sources } => secrets::own_credential(cluster, sources),
        Content::Encryption { state, .. } => {
            secrets::encryption(cluster, observed, &state, encryption_key).map_err(pki)?.ok_or_else(outdated)?
        }
        Content::Node { node, leaves } => {
            let cas = ClusterCas::load(cluster, observed).ok_or_else(outdated)?;
            let node = cluster.all_nodes().find(|other| other.name == node).ok_or_else(outdated)?;
            let user_files = secrets::user_provided_files(cluster, observed).map_err(|_| outdated())?;
            let mut pairs = BTreeMap::new();
            for planned in leaves {
                let leaf = planned.leaf.name;
                let issuer = cas.get(planned.leaf.issuer).ok_or_else(outdated)?.issuer_of(planned.leaf);
                if let Some(pair) = pair(planned, issuer).map_err(pki)? {
                    pairs.insert(leaf, pair);
                }
            }
            let mut secret = secrets::node(cluster, node, &cas, &user_files, &pairs);
            // Components that read a file only at startup restart after a change of the file.
            if let Some(before) = observed.secrets.get(&name) {
                let restart_annotations = reload::restart_annotations(&files(before), &files(&secret));
                secret.annotations_mut().extend(restart_annotations);
            }
            secret
        }
        Content::WorkerCredential { node, source } => {
            let cas = ClusterCas::load(cluster, observed).ok_or_else(outdated)?;
            let issued = issued("kubelet.conf", source, cas.cluster().issuer(false)).map_err(pki)?;
            secrets::worker_credential(cluster, &node, &cas, observed, &issued.ok_or_else(outdated)?)
        }
        Content::Kubeconfig { leaf: planned } => {
            let cas = ClusterCas::load(cluster, observed).ok_or_else(outdated)?;
            let first = cluster.nodes.first().ok_or_else(outdated)?;
            let leaf = planned.leaf;
            let issuer = cas.get(leaf.issuer).ok_or_else(outdated)?.issuer_of(leaf);
            let pair = pair(planned, issuer).map_err(pki)?.ok_or_else(outdated)?;
            secrets::user_kubeconfig(cluster, first, leaf, &cas, &pair)
        }
        Content::User { user, source } => {
            let cas = ClusterCas::load(cluster, observed).ok_or_else(outdated)?;
            let user = cluster.users.iter().find(|other| other.name == user).ok_or_else(outdated)?;
            let issuer = cas.get(USER_ISSUER).ok_or_else(outdated)?.issuer(false);
            let issued = issued(&user_certificate(&user.name), source, issuer).map_err(pki)?;
            secrets::users(cluster, user, &cas, &issued.ok_or_else(outdated)?)
        }
    };
    let found = observed.secrets.get(&name).map(|found| &found.metadata);
    secret.metadata = objects::merged_metadata(found, secret.metadata);
    Ok(secret)
}

fn files(secret: &SecretObject) -> BTreeMap<String, &[u8]> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.as_slice())).collect()
}

fn pair(planned: PlannedLeaf, issuer: &CertificateAuthority) -> Result<Option<Pair>, PkiError> {
    issued(planned.leaf.name, planned.source, issuer)
}

fn issued(certificate: &str, source: Source, issuer: &CertificateAuthority) -> Result<Option<Pair>, PkiError> {
    match source {
        Source::Keep(pair) | Source::Signed { pair, .. } => Ok(Some(pair)),
        Source::KubeletManaged => Ok(None),
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
