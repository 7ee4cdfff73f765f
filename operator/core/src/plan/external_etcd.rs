//! What the user's Secret of an external etcd holds: trust, and the API servers' client certificate.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Layout, reasons};

use super::given::{GivenFile, NOT_FOUND, UNUSABLE};
use super::node::{PRIVATE, PUBLIC};
use crate::blocker::Blocker;
use crate::manifests::{ETCD_CLIENT_CERTIFICATE, ETCD_CLIENT_KEY, ETCD_TRUST};
use crate::model::Cluster;
use crate::objects;
use crate::observed::Observed;
use crate::pki::SecretText;
use crate::pki::places::pki_file;
use crate::pki::{PrivateKey, certificates_in, first_certificate};

const FIELD: &str = "spec.etcd.external.secretRef";

/// The files with which the API servers reach an external etcd; none without one.
pub(super) fn files(cluster: &Cluster, observed: &Observed) -> Result<Vec<GivenFile>, Blocker> {
    let Some(external) = cluster.external_etcd() else { return Ok(vec![]) };
    let name = &external.secret_ref.name;
    let cure = format!(
        "make it with ca.crt (what etcd's certificates are verified with), tls.crt and tls.key (the API servers' client \
         certificate), for example `kubectl create secret generic {name} -n {} --from-file=ca.crt --from-file=tls.crt \
         --from-file=tls.key`",
        cluster.namespace
    );
    let Some(secret) = observed.secrets.get(name) else {
        let message = format!("{FIELD}: there is no Secret {name}: {cure}");
        return Err(Blocker { reason: NOT_FOUND, message });
    };
    read(cluster.layout(), secret).map_err(|problem| {
        let message = format!("{FIELD}: Secret {name} can't be used: {problem}; {cure}");
        Blocker { reason: UNUSABLE, message }
    })
}

fn read(layout: Layout, secret: &SecretObject) -> Result<Vec<GivenFile>, String> {
    let text = |key: &str| objects::text(secret, key).ok_or_else(|| format!("it lacks {key}")).map(str::to_owned);
    let (trust, certificate, key) = (text("ca.crt")?, text("tls.crt")?, text("tls.key")?);
    certificates_in("ca.crt", &trust).map_err(|error| error.to_string())?;
    let facts = first_certificate("tls.crt", &certificate).map_err(|error| error.to_string())?;
    let private = PrivateKey::from_pem("tls.key", &key).map_err(|error| error.to_string())?;
    if facts.subject_public_key_info != private.subject_public_key_info() {
        return Err("tls.crt and tls.key don't belong together".to_owned());
    }
    let file =
        |key, name, mode, content| GivenFile { key, path: pki_file(layout, name), mode, content: SecretText(content) };
    Ok(vec![
        file("etcd-ca.crt", ETCD_TRUST, PUBLIC, trust),
        file("apiserver-etcd-client.crt", ETCD_CLIENT_CERTIFICATE, PUBLIC, certificate),
        file("apiserver-etcd-client.key", ETCD_CLIENT_KEY, PRIVATE, key),
    ])
}

/// Says it if the client certificate has ended. It is written all the same: only its owner can renew it, and what lies
/// on the machines is the same.
pub(super) fn ended(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Option<Blocker> {
    let name = &cluster.external_etcd()?.secret_ref.name;
    let certificate = objects::text(observed.secrets.get(name)?, "tls.crt")?;
    let end = first_certificate("tls.crt", certificate).ok()?.not_after;
    (end <= now).then(|| Blocker {
        reason: reasons::ETCD_CERTIFICATE_EXPIRED,
        message: format!(
            "{FIELD}: the certificate in Secret {name} has ended at {end}: put a new tls.crt and tls.key there"
        ),
    })
}
