//! The user's Secret for an external etcd: the CA bundle, and the API servers' client certificate.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Layout, reasons};

use super::secret_file::{PRIVATE, PUBLIC, UserProvidedFile};
use crate::blocker::Blocker;
use crate::manifests::{ETCD_CLIENT_CERTIFICATE, ETCD_CLIENT_KEY, ETCD_TRUST};
use crate::model::Cluster;
use crate::objects;
use crate::observed::Observed;
use crate::pki::places::pki_file;
use crate::pki::{PrivateKey, SecretText, certificates_in, first_certificate};

const FIELD: &str = "spec.etcd.external.secretRef";

/// Returns the files that the API servers need for an external etcd; no files without an external etcd.
pub(crate) fn files(cluster: &Cluster, observed: &Observed) -> Result<Vec<UserProvidedFile>, Blocker> {
    let Some(external) = cluster.external_etcd() else { return Ok(vec![]) };
    let name = &external.secret_ref.name;
    let cure = format!(
        "create it with ca.crt (the CA bundle of etcd's certificates), tls.crt and tls.key (the API servers' client \
         certificate), for example `kubectl create secret generic {name} -n {} --from-file=ca.crt --from-file=tls.crt \
         --from-file=tls.key`",
        cluster.namespace
    );
    let Some(secret) = observed.secrets.get(name) else {
        let message = format!("{FIELD}: Secret {name} does not exist: {cure}");
        return Err(Blocker { reason: reasons::SECRET_NOT_FOUND, message });
    };
    read(cluster.layout(), secret).map_err(|problem| {
        let message = format!("{FIELD}: Secret {name} can't be used: {problem}; {cure}");
        Blocker { reason: reasons::SECRET_UNUSABLE, message }
    })
}

fn read(layout: Layout, secret: &SecretObject) -> Result<Vec<UserProvidedFile>, String> {
    let text = |key: &str| objects::text(secret, key).ok_or_else(|| format!("it lacks {key}")).map(str::to_owned);
    let (trust, certificate, key) = (text("ca.crt")?, text("tls.crt")?, text("tls.key")?);
    certificates_in("ca.crt", &trust).map_err(|error| error.to_string())?;
    let facts = first_certificate("tls.crt", &certificate).map_err(|error| error.to_string())?;
    let private = PrivateKey::from_pem("tls.key", &key).map_err(|error| error.to_string())?;
    if facts.subject_public_key_info != private.subject_public_key_info() {
        return Err("the public key of tls.crt does not match tls.key".to_owned());
    }
    let file = |key, name, mode, content| UserProvidedFile {
        key,
        path: pki_file(layout, name),
        mode,
        content: SecretText(content),
    };
    Ok(vec![
        file("etcd-ca.crt", ETCD_TRUST, PUBLIC, trust),
        file("apiserver-etcd-client.crt", ETCD_CLIENT_CERTIFICATE, PUBLIC, certificate),
        file("apiserver-etcd-client.key", ETCD_CLIENT_KEY, PRIVATE, key),
    ])
}

/// Returns a blocker if the client certificate has expired. Keyplane still distributes the certificate: only its owner
/// can renew it, and the nodes have the same certificate.
pub(crate) fn ended(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Option<Blocker> {
    let name = &cluster.external_etcd()?.secret_ref.name;
    let certificate = objects::text(observed.secrets.get(name)?, "tls.crt")?;
    let end = first_certificate("tls.crt", certificate).ok()?.not_after;
    (end <= now).then(|| Blocker {
        reason: reasons::ETCD_CERTIFICATE_EXPIRED,
        message: format!(
            "{FIELD}: the certificate in Secret {name} expired at {end}: put a new tls.crt and tls.key into the Secret"
        ),
    })
}
