//! Carries out a rotation's move on the Secret of an authority or key. What it makes is written in one piece, so that no
//! key is ever made twice or lost.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::ResourceExt;

use crate::x509::{cross_sign, generate, mint_authority, renew_authority};
use keyplane_core::authorities::{ABOVE, CROSS, OTHER, OTHER_ABOVE};
use keyplane_core::authorities::{AuthoritySet, ServiceAccountKeys};
use keyplane_core::model::Cluster;
use keyplane_core::names;
use keyplane_core::objects;
use keyplane_core::pki::AuthorityName;
use keyplane_core::pki::{Authority, PkiError, PrivateKey, first_certificate};
use keyplane_core::plan::rotation::{Move, Renewal, Successor};
use keyplane_core::rotation::revocation::remembered;
use keyplane_core::rotation::{Stage, State, Subject};

/// The keys of the Secret for the authority that signs.
const OWN: (&str, &str) = ("tls.crt", "tls.key");

/// The Secret of a cluster's first authority.
pub(super) fn first(cluster: &Cluster, authority: AuthorityName, name: &str, made: &Authority) -> Secret {
    let (mut data, subject) = (BTreeMap::new(), Subject::Authority(authority));
    put(&mut data, OWN, ABOVE, made);
    // What was asked for before there was anything asks for nothing.
    let rotate = &cluster.rotate;
    let asked = [rotate.of(subject), rotate.renewal(), rotate.revocation_of(subject)];
    let mut marks: Vec<_> = asked.into_iter().flat_map(|request| request.marks().collect::<Vec<_>>()).collect();
    if made.key().is_none() {
        marks.push((keys::EXTERNAL_CA_ANNOTATION.to_owned(), "true".to_owned()));
    }
    written(cluster, subject, name, data, None, marks)
}

/// The Secret after the move.
pub(super) fn fulfil(
    cluster: &Cluster,
    subject: Subject,
    step: Move,
    name: &str,
    found: &Secret,
) -> Result<Secret, PkiError> {
    let found_data = found.data.iter().flatten();
    let mut data: BTreeMap<String, String> =
        found_data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect();
    let mut marks = vec![];
    let unreadable = |what| PkiError::NoCertificate { what };
    let without_key = |what| PkiError::NoPrivateKey { what };
    let state = match step {
        Move::Begin { successor, not_before, state } => {
            match subject {
                Subject::Authority(authority) => {
                    let set = AuthoritySet::from_secret(name, found).map_err(unreadable)?;
                    let made = succeed(authority, successor, not_before)?;
                    if let Some(cross) = cross_sign(&made, set.signing(), not_before)? {
                        data.insert(CROSS.to_owned(), cross);
                    }
                    let peer = PeerKeys::of(state.stage);
                    put(&mut data, peer.pair, peer.above, &made);
                    // What is made anew needs no longer life.
                    marks.extend(cluster.rotate.renewal().marks());
                }
                Subject::ServiceAccountKey => {
                    let keys = ServiceAccountKeys::from_secret(name, found).map_err(without_key)?;
                    let made = succeed_key(name, &successor)?;
                    data.insert("tls.crt".to_owned(), public_keys([keys.signing(), &made]));
                    data.insert(PeerKeys::of(state.stage).pair.1.to_owned(), made.pem().to_owned());
                }
            }
            marks.extend(cluster.rotate.of(subject).marks());
            Some(state)
        }
        Move::Renew { renewal } => {
            let set = AuthoritySet::from_secret(name, found).map_err(unreadable)?;
            let renewed = match renewal {
                Renewal::Made { not_before, not_after } => renew_authority(set.signing(), not_before, not_after)?,
                Renewal::Given(given) => *given,
            };
            put(&mut data, OWN, ABOVE, &renewed);
            marks.extend(cluster.rotate.renewal().marks());
            // The last rotation stays the last one.
            None
        }
        Move::Revoke { successor, not_before, state } => {
            PeerKeys::clear(&mut data);
            data.remove(CROSS);
            match subject {
                Subject::Authority(authority) => {
                    let set = AuthoritySet::from_secret(name, found).map_err(unreadable)?;
                    let peer = PeerKeys::of(state.stage);
                    put(&mut data, peer.pair, peer.above, set.signing());
                    put(&mut data, OWN, ABOVE, &succeed(authority, successor, not_before)?);
                    let gone = std::iter::once(set.signing()).chain(set.other());
                    let gone: Vec<_> = gone.map(|one| one.facts().fingerprint()).collect();
                    marks.push((keys::REVOKED_CAS_ANNOTATION.to_owned(), remembered(&gone, set.revoked())));
                    marks.extend(cluster.rotate.renewal().marks());
                }
                Subject::ServiceAccountKey => {
                    let keys = ServiceAccountKeys::from_secret(name, found).map_err(without_key)?;
                    let made = succeed_key(name, &successor)?;
                    data.insert(PeerKeys::of(state.stage).pair.1.to_owned(), keys.signing().pem().to_owned());
                    data.insert(OWN.0.to_owned(), public_keys([&made]));
                    data.insert(OWN.1.to_owned(), made.pem().to_owned());
                }
            }
            // What was asked for before is a new one, and this is one.
            marks.extend(cluster.rotate.of(subject).marks());
            marks.extend(cluster.rotate.revocation_of(subject).marks());
            Some(state)
        }
        Move::Enter { state, swap } => {
            let peer = PeerKeys::of(state.stage);
            peer.take_over(&mut data);
            if swap {
                exchange(&mut data, "tls.key", peer.pair.1);
                if matches!(subject, Subject::Authority(_)) {
                    exchange(&mut data, "tls.crt", peer.pair.0);
                    exchange(&mut data, ABOVE.0, peer.above.0);
                    exchange(&mut data, ABOVE.1, peer.above.1);
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
        Move::Complete { state } => {
            PeerKeys::clear(&mut data);
            data.remove(CROSS);
            Some(state)
        }
    };
    Ok(written(cluster, subject, name, data, state.as_ref(), marks))
}

/// The authority that takes the place of another one.
fn succeed(name: AuthorityName, successor: Successor, not_before: Timestamp) -> Result<Authority, PkiError> {
    match successor {
        Successor::Made { algorithm, not_after } => {
            mint_authority(name.common_name(), algorithm, not_before, not_after)
        }
        Successor::Given(given) => Ok(*given),
    }
}

/// The same of the key of service-account tokens, which nobody gives.
fn succeed_key(name: &str, successor: &Successor) -> Result<PrivateKey, PkiError> {
    match successor {
        Successor::Made { algorithm, .. } => generate(*algorithm),
        Successor::Given(_) => Err(PkiError::NoPrivateKey { what: name.to_owned() }),
    }
}

fn written(
    cluster: &Cluster,
    subject: Subject,
    name: &str,
    data: BTreeMap<String, String>,
    state: Option<&State>,
    marks: Vec<(String, String)>,
) -> Secret {
    let end = match subject {
        Subject::Authority(_) => data.get("tls.crt").and_then(|pem| first_certificate(name, pem).ok()),
        Subject::ServiceAccountKey => None,
    };
    let type_ = names::CLUSTER_API_SECRET_TYPE;
    let mut secret = objects::secret(cluster, name.to_owned(), None, type_, data, []);
    let end = end.map(|facts| (keys::NOT_AFTER_ANNOTATION.to_owned(), facts.not_after.to_string()));
    secret.annotations_mut().extend(end.into_iter().chain(marks));
    let state = state.map(|state| (keys::ROTATION_STATE_ANNOTATION.to_owned(), state.to_text()));
    secret.annotations_mut().extend(state);
    secret
}

/// Puts an authority under these keys, and what is above it under those.
fn put(
    data: &mut BTreeMap<String, String>,
    (certificate, key): (&str, &str),
    (above, root): (&str, &str),
    authority: &Authority,
) {
    data.insert(certificate.to_owned(), authority.certificate_pem().to_owned());
    data.extend(authority.key().map(|private| (key.to_owned(), private.pem().to_owned())));
    let chain = Some(authority.above()).filter(|chain| !chain.is_empty());
    for (key, text) in [(above, chain), (root, authority.root())] {
        match text {
            Some(text) => _ = data.insert(key.to_owned(), text.to_owned()),
            None => _ = data.remove(key),
        }
    }
}

/// The contents of two keys change places, where there are any.
fn exchange(data: &mut BTreeMap<String, String>, one: &str, other: &str) {
    let contents = [(other, data.remove(one)), (one, data.remove(other))];
    data.extend(contents.into_iter().filter_map(|(key, content)| Some((key.to_owned(), content?))));
}

fn public_keys<const N: usize>(keys: [&PrivateKey; N]) -> String {
    keys.map(PrivateKey::public_key_pem).concat()
}
