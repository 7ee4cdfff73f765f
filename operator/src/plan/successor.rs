//! Carries out a rotation's move on the Secret of an authority or key. What it makes is written in one piece, so that no
//! key is ever made twice or lost.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::authority_set::{CROSS, OTHER};
use super::rotation::Move;
use super::{AuthoritySet, ServiceAccountKeys, objects};
use crate::cluster::Cluster;
use crate::pki::{PkiError, PrivateKey, cross_sign, first_certificate, mint_authority};
use crate::rotation::{STATE_ANNOTATION, Stage, State, Subject};

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
    let state = match step {
        Move::Begin { algorithm, not_before, not_after, state } => {
            match subject {
                Subject::Authority(authority) => {
                    let unreadable = |what| PkiError::NoCertificate { what };
                    let set = AuthoritySet::from_secret(name, found).map_err(unreadable)?;
                    let made = mint_authority(authority.common_name(), algorithm, not_before, not_after)?;
                    if let Some(cross) = cross_sign(&made, set.signing(), not_before)? {
                        data.insert(CROSS.to_owned(), cross);
                    }
                    data.insert(OTHER.0.to_owned(), made.certificate_pem().to_owned());
                    data.extend(made.key().map(|key| (OTHER.1.to_owned(), key.pem().to_owned())));
                }
                Subject::ServiceAccountKey => {
                    let unreadable = |what| PkiError::NoPrivateKey { what };
                    let keys = ServiceAccountKeys::from_secret(name, found).map_err(unreadable)?;
                    let made = PrivateKey::generate(algorithm)?;
                    data.insert("tls.crt".to_owned(), public_keys([keys.signing(), &made]));
                    data.insert(OTHER.1.to_owned(), made.pem().to_owned());
                }
            }
            marks.extend(cluster.rotate.of(subject).marks());
            state
        }
        Move::Enter { state, swap } => {
            if swap {
                exchange(&mut data, "tls.key", OTHER.1);
                if matches!(subject, Subject::Authority(_)) {
                    exchange(&mut data, "tls.crt", OTHER.0);
                }
            }
            if subject == Subject::ServiceAccountKey {
                let key = |file: &str| PrivateKey::from_pem(name, data.get(file).map_or("", String::as_str));
                let signing = key("tls.key")?;
                let public = match state.stage {
                    Some(Stage::Drop) => public_keys([&signing]),
                    _ => public_keys([&signing, &key(OTHER.1)?]),
                };
                data.insert("tls.crt".to_owned(), public);
            }
            state
        }
        Move::Complete { state } => {
            for key in [OTHER.0, OTHER.1, CROSS] {
                data.remove(key);
            }
            state
        }
    };
    Ok(written(cluster, subject, name, data, &state, marks))
}

fn written(
    cluster: &Cluster,
    subject: Subject,
    name: &str,
    data: BTreeMap<String, String>,
    state: &State,
    marks: Vec<(String, String)>,
) -> Secret {
    let end = match subject {
        Subject::Authority(_) => data.get("tls.crt").and_then(|pem| first_certificate(name, pem).ok()),
        Subject::ServiceAccountKey => None,
    };
    let type_ = objects::CLUSTER_API_SECRET_TYPE;
    let mut secret = objects::secret(cluster, name.to_owned(), None, type_, data, []);
    let end = end.map(|facts| (objects::NOT_AFTER_ANNOTATION.to_owned(), facts.not_after.to_string()));
    secret.annotations_mut().extend(end.into_iter().chain(marks));
    secret.annotations_mut().insert(STATE_ANNOTATION.to_owned(), state.to_text());
    secret
}

fn exchange(data: &mut BTreeMap<String, String>, one: &str, other: &str) {
    if let (Some(first), Some(second)) = (data.remove(one), data.remove(other)) {
        data.insert(one.to_owned(), second);
        data.insert(other.to_owned(), first);
    }
}

fn public_keys<const N: usize>(keys: [&PrivateKey; N]) -> String {
    keys.map(PrivateKey::public_key_pem).concat()
}
