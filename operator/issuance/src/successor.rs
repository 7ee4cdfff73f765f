//! Applies a rotation step to the Secret of a CA or key. One write stores all new keys and certificates, so that no key
//! is lost or generated twice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::ResourceExt;

use crate::x509::{cross_sign, generate, generate_ca, renew_ca};
use keyplane_core::certificate_authorities::{CHAIN_KEYS, CROSS_SIGNED_KEY, CaSet, PeerKeys, ServiceAccountKeys};
use keyplane_core::model::Cluster;
use keyplane_core::pki::{CaName, CertificateAuthority, PkiError, PrivateKey, first_certificate};
use keyplane_core::plan::rotation::{Renewal, RotationStep, Successor};
use keyplane_core::rotation::revocation::prepend_revoked;
use keyplane_core::rotation::{Stage, State, Subject};
use keyplane_core::{names, objects};

/// The Secret keys of the signing CA.
const SIGNING_KEYS: (&str, &str) = ("tls.crt", "tls.key");

/// Returns the Secret of the first CA of a cluster.
pub(super) fn first(cluster: &Cluster, ca: CaName, name: &str, new_ca: &CertificateAuthority) -> Secret {
    let (mut data, subject) = (BTreeMap::new(), Subject::CertificateAuthority(ca));
    put(&mut data, SIGNING_KEYS, CHAIN_KEYS, new_ca);
    // Rotation requests from before the first CA count as answered.
    let rotate = &cluster.rotate;
    let requests = [rotate.of(subject), rotate.renewal(), rotate.revocation_of(subject)];
    let mut annotations: Vec<_> =
        requests.into_iter().flat_map(|request| request.answer_annotations().collect::<Vec<_>>()).collect();
    if new_ca.key().is_none() {
        annotations.push((keys::EXTERNAL_CA_ANNOTATION.to_owned(), "true".to_owned()));
    }
    written(cluster, subject, name, data, None, annotations)
}

/// Returns the Secret after the rotation step.
pub(super) fn apply_move(
    cluster: &Cluster,
    subject: Subject,
    step: RotationStep,
    name: &str,
    found: &Secret,
) -> Result<Secret, PkiError> {
    let found_data = found.data.iter().flatten();
    let mut data: BTreeMap<String, String> =
        found_data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect();
    let mut annotations = vec![];
    let unreadable = |what| PkiError::NoCertificate { what };
    let without_key = |what| PkiError::NoPrivateKey { what };
    let state = match step {
        RotationStep::Begin { successor, not_before, state } => {
            match subject {
                Subject::CertificateAuthority(ca) => {
                    let set = CaSet::from_secret(name, found).map_err(unreadable)?;
                    let new_ca = create_successor_ca(ca, successor, not_before)?;
                    if let Some(cross) = cross_sign(&new_ca, set.signing(), not_before)? {
                        data.insert(CROSS_SIGNED_KEY.to_owned(), cross);
                    }
                    let peer = PeerKeys::of(state.stage);
                    put(&mut data, peer.pair, peer.chain, &new_ca);
                    // The new CA also answers a renewal request.
                    annotations.extend(cluster.rotate.renewal().answer_annotations());
                }
                Subject::ServiceAccountKey => {
                    let keys = ServiceAccountKeys::from_secret(name, found).map_err(without_key)?;
                    let new_key = create_successor_key(name, &successor)?;
                    data.insert("tls.crt".to_owned(), public_keys([keys.signing(), &new_key]));
                    data.insert(PeerKeys::of(state.stage).pair.1.to_owned(), new_key.pem().to_owned());
                }
            }
            annotations.extend(cluster.rotate.of(subject).answer_annotations());
            Some(state)
        }
        RotationStep::Renew { renewal } => {
            let set = CaSet::from_secret(name, found).map_err(unreadable)?;
            let renewed = match renewal {
                Renewal::Issued { not_before, not_after } => renew_ca(set.signing(), not_before, not_after)?,
                Renewal::UserProvided(user_provided) => *user_provided,
            };
            put(&mut data, SIGNING_KEYS, CHAIN_KEYS, &renewed);
            annotations.extend(cluster.rotate.renewal().answer_annotations());
            // A renewal keeps the state of the last rotation.
            None
        }
        RotationStep::Revoke { successor, not_before, state } => {
            PeerKeys::clear(&mut data);
            data.remove(CROSS_SIGNED_KEY);
            match subject {
                Subject::CertificateAuthority(ca) => {
                    let set = CaSet::from_secret(name, found).map_err(unreadable)?;
                    let peer = PeerKeys::of(state.stage);
                    put(&mut data, peer.pair, peer.chain, set.signing());
                    put(&mut data, SIGNING_KEYS, CHAIN_KEYS, &create_successor_ca(ca, successor, not_before)?);
                    let revoked = std::iter::once(set.signing()).chain(set.other());
                    let revoked: Vec<_> = revoked.map(|ca| ca.facts().fingerprint()).collect();
                    annotations
                        .push((keys::REVOKED_CAS_ANNOTATION.to_owned(), prepend_revoked(&revoked, set.revoked())));
                    annotations.extend(cluster.rotate.renewal().answer_annotations());
                }
                Subject::ServiceAccountKey => {
                    let keys = ServiceAccountKeys::from_secret(name, found).map_err(without_key)?;
                    let new_key = create_successor_key(name, &successor)?;
                    data.insert(PeerKeys::of(state.stage).pair.1.to_owned(), keys.signing().pem().to_owned());
                    data.insert(SIGNING_KEYS.0.to_owned(), public_keys([&new_key]));
                    data.insert(SIGNING_KEYS.1.to_owned(), new_key.pem().to_owned());
                }
            }
            // A revocation also creates a new CA or key, so it answers the rotation requests too.
            annotations.extend(cluster.rotate.of(subject).answer_annotations());
            annotations.extend(cluster.rotate.revocation_of(subject).answer_annotations());
            Some(state)
        }
        RotationStep::Enter { state, swap } => {
            let peer = PeerKeys::of(state.stage);
            peer.move_peer(&mut data);
            if swap {
                exchange(&mut data, "tls.key", peer.pair.1);
                if matches!(subject, Subject::CertificateAuthority(_)) {
                    exchange(&mut data, "tls.crt", peer.pair.0);
                    exchange(&mut data, CHAIN_KEYS.0, peer.chain.0);
                    exchange(&mut data, CHAIN_KEYS.1, peer.chain.1);
                }
            }
            if subject == Subject::ServiceAccountKey {
                let key = |file: &str| PrivateKey::from_pem(name, data.get(file).map_or("", String::as_str));
                let signing = key("tls.key")?;
                let public = match state.stage {
                    Some(Stage::Drop) => public_keys([&signing]),
                    _ => public_keys([&signing, &key(peer.pair.1)?]),
                };
                data.insert("tls.crt".to_owned(), public);
            }
            Some(state)
        }
        RotationStep::Complete { state } => {
            PeerKeys::clear(&mut data);
            data.remove(CROSS_SIGNED_KEY);
            Some(state)
        }
    };
    Ok(written(cluster, subject, name, data, state.as_ref(), annotations))
}

/// Returns the new CA of a rotation.
fn create_successor_ca(
    name: CaName,
    successor: Successor,
    not_before: Timestamp,
) -> Result<CertificateAuthority, PkiError> {
    match successor {
        Successor::Generated { algorithm, not_after } => {
            generate_ca(name.common_name(), algorithm, not_before, not_after)
        }
        Successor::UserProvided(user_provided) => Ok(*user_provided),
    }
}

/// Generates the new service-account key of a rotation. A user-provided one is not supported.
fn create_successor_key(name: &str, successor: &Successor) -> Result<PrivateKey, PkiError> {
    match successor {
        Successor::Generated { algorithm, .. } => generate(*algorithm),
        Successor::UserProvided(_) => Err(PkiError::NoPrivateKey { what: name.to_owned() }),
    }
}

fn written(
    cluster: &Cluster,
    subject: Subject,
    name: &str,
    data: BTreeMap<String, String>,
    state: Option<&State>,
    annotations: Vec<(String, String)>,
) -> Secret {
    let end = match subject {
        Subject::CertificateAuthority(_) => data.get("tls.crt").and_then(|pem| first_certificate(name, pem).ok()),
        Subject::ServiceAccountKey => None,
    };
    let type_ = names::CLUSTER_API_SECRET_TYPE;
    let mut secret = objects::secret(cluster, name.to_owned(), None, type_, data, []);
    let end = end.map(|facts| (keys::NOT_AFTER_ANNOTATION.to_owned(), facts.not_after.to_string()));
    secret.annotations_mut().extend(end.into_iter().chain(annotations));
    let state = state.map(|state| (keys::ROTATION_STATE_ANNOTATION.to_owned(), state.to_text()));
    secret.annotations_mut().extend(state);
    secret
}

/// Writes a CA and its issuers under the given Secret keys.
fn put(
    data: &mut BTreeMap<String, String>,
    (certificate, key): (&str, &str),
    (intermediates, root): (&str, &str),
    ca: &CertificateAuthority,
) {
    data.insert(certificate.to_owned(), ca.certificate_pem().to_owned());
    data.extend(ca.key().map(|private| (key.to_owned(), private.pem().to_owned())));
    let chain = Some(ca.intermediates()).filter(|chain| !chain.is_empty());
    for (key, text) in [(intermediates, chain), (root, ca.root())] {
        match text {
            Some(text) => _ = data.insert(key.to_owned(), text.to_owned()),
            None => _ = data.remove(key),
        }
    }
}

/// Swaps the contents of two Secret keys. Either one may be missing.
fn exchange(data: &mut BTreeMap<String, String>, one: &str, other: &str) {
    let contents = [(other, data.remove(one)), (one, data.remove(other))];
    data.extend(contents.into_iter().filter_map(|(key, content)| Some((key.to_owned(), content?))));
}

fn public_keys<const N: usize>(keys: [&PrivateKey; N]) -> String {
    keys.map(PrivateKey::public_key_pem).concat()
}
