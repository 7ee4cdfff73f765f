//! Keyplane's credentials for a target cluster. They are read or issued when a connection needs them, and not cached.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;
use kube::{Api, Client};

use super::SessionSpec;
use super::unavailable::Unavailable;
use crate::etcd_client::Credentials;
use crate::target_client;
use keyplane_core::certificate_authorities::CaSet;
use keyplane_core::model::Endpoint;
use keyplane_core::pki::CaName;
use keyplane_core::plan::own_credential;
use keyplane_core::target_objects::client_subject;
use keyplane_core::{kubeconfig, names, objects};

/// Clients of the target cluster as Keyplane's own restricted user.
pub(super) struct Clients {
    /// Client of the shared control-plane endpoint.
    pub(super) shared: Client,
    /// Clients of each API server's own address, by node name; only if the control plane registers no Nodes.
    pub(super) of_each: BTreeMap<String, Client>,
}

/// Creates Keyplane's clients of the target cluster, all with one certificate.
pub(super) async fn own(management: &Client, spec: &SessionSpec) -> Result<Clients, Unavailable> {
    let (trust, certificate, key) = issue(management, spec, CaName::Cluster).await?;
    // The CA has changed since the reconciliation that built the session spec: the next reconciliation handles the
    // change.
    if trust != spec.trust {
        let name = names::ca_secret(&spec.cluster.name, CaName::Cluster);
        return Err(Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: its certificate has changed")));
    }
    let of_each = if spec.cluster.spec.control_plane.register_nodes {
        BTreeMap::new()
    } else {
        connect_to_each(spec, &certificate, &key).await?
    };
    Ok(Clients { shared: connect(spec, &spec.cluster.endpoint, &certificate, &key).await?, of_each })
}

/// Creates Keyplane's clients of the API servers at their own addresses, by node, all with one certificate.
pub(super) async fn own_at_each(
    management: &Client,
    spec: &SessionSpec,
) -> Result<BTreeMap<String, Client>, Unavailable> {
    let (_, certificate, key) = issue(management, spec, CaName::Cluster).await?;
    connect_to_each(spec, &certificate, &key).await
}

async fn connect_to_each(
    spec: &SessionSpec,
    certificate: &str,
    key: &str,
) -> Result<BTreeMap<String, Client>, Unavailable> {
    let mut clients = BTreeMap::new();
    for node in &spec.cluster.nodes {
        clients.insert(node.name.clone(), connect(spec, &node.local_endpoint(), certificate, key).await?);
    }
    Ok(clients)
}

/// Issues credentials for the target cluster's etcd. etcd requires only a certificate of the etcd CA.
pub(super) async fn etcd(management: &Client, spec: &SessionSpec) -> Result<Credentials, Unavailable> {
    let (trust, certificate, key) = issue(management, spec, CaName::Etcd).await?;
    Ok(Credentials::new(&trust, &certificate, &key))
}

/// Returns the trust bundle of a CA, and a client certificate and key that the CA has issued.
async fn issue(management: &Client, spec: &SessionSpec, ca: CaName) -> Result<(String, String, String), Unavailable> {
    let name = names::ca_secret(&spec.cluster.name, ca);
    let secret = read(management, spec, &name).await?;
    if objects::is_external_ca(&secret) {
        let set = CaSet::from_secret(ca.name(), &secret);
        let set = set.map_err(|error| Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: {error}")))?;
        let (own, own_key) = externally_signed(management, spec, ca).await?;
        return Ok((set.bundle(), own, own_key));
    }
    let issued = tokio::task::spawn_blocking(move || {
        let set = CaSet::from_secret(ca.name(), &secret)?;
        let issued = target_client::issue_client(client_subject(), set.issuer(false), Timestamp::now());
        let (own, own_key) = issued.map_err(|error| error.to_string())?;
        Ok((set.bundle(), own, own_key))
    });
    let failed = |error: String| Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: {error}"));
    issued.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
}

/// Reads the stored client certificate and key of an external CA, whose key Keyplane does not have.
async fn externally_signed(
    management: &Client,
    spec: &SessionSpec,
    ca: CaName,
) -> Result<(String, String), Unavailable> {
    let name = names::own_secret(&spec.cluster.name);
    let secrets: Api<Secret> = Api::namespaced(management.clone(), &spec.cluster.namespace);
    let failed = |error: kube::Error| Unavailable::new(reasons::NO_CLIENT, format!("reading Secret {name}: {error}"));
    let found = secrets.get_opt(&name).await.map_err(failed)?;
    found.and_then(|secret| own_credential(&secret, ca)).ok_or_else(|| {
        let message = format!("Keyplane's own certificate of {} in Secret {name} waits for its signer", ca.name());
        Unavailable::new(reasons::WAITING_FOR_SIGNER, message)
    })
}

/// Creates a client of the target cluster as its super-admin, from the first node's kubeconfig.
pub(super) async fn super_admin(management: &Client, spec: &SessionSpec) -> Result<Client, Unavailable> {
    let missing = || {
        Unavailable::new(
            reasons::NO_SUPER_ADMIN,
            "Keyplane lacks permissions in the target cluster, and the first node's Secret has no super-admin.conf to \
             grant them",
        )
    };
    let first = spec.cluster.nodes.first().ok_or_else(missing)?;
    let secret = read(management, spec, &names::node_secret(&spec.cluster.name, &first.name)).await?;
    let credential = objects::text(&secret, "super-admin.conf").and_then(kubeconfig::embedded_credential);
    let (certificate, key) = credential.ok_or_else(missing)?;
    connect(spec, &spec.cluster.endpoint, &certificate, &key).await
}

pub(super) async fn read(management: &Client, spec: &SessionSpec, name: &str) -> Result<Secret, Unavailable> {
    let secrets: Api<Secret> = Api::namespaced(management.clone(), &spec.cluster.namespace);
    let failed = |error: kube::Error| Unavailable::new(reasons::NO_CLIENT, format!("reading Secret {name}: {error}"));
    secrets.get(name).await.map_err(failed)
}

async fn connect(spec: &SessionSpec, server: &Endpoint, certificate: &str, key: &str) -> Result<Client, Unavailable> {
    let client = target_client::connect(spec.cluster.proxy_url(), server, &spec.trust, certificate, key).await;
    client.map_err(|error| Unavailable::new(reasons::NO_CLIENT, error.to_string()))
}
