//! Keyplane's credentials for a target. They are read or made when a connection needs them, and not kept.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;
use kube::{Api, Client};

use super::Brief;
use super::preparation::Unavailable;
use crate::etcd_client::Credentials;
use crate::target_client;
use keyplane_core::authorities::AuthoritySet;
use keyplane_core::kubeconfig;
use keyplane_core::model::Endpoint;
use keyplane_core::names;
use keyplane_core::objects;
use keyplane_core::pki::AuthorityName;
use keyplane_core::plan::own_credential;
use keyplane_core::target_objects::client_subject;

/// Clients of the target as Keyplane's own narrow user.
pub(super) struct Clients {
    /// At the endpoint that all API servers share.
    pub(super) shared: Client,
    /// At each API server's own address, by the machine's name, where no Node tells of the machines.
    pub(super) of_each: BTreeMap<String, Client>,
}

/// Keyplane's clients of the target, all with one certificate.
pub(super) async fn own(management: &Client, brief: &Brief) -> Result<Clients, Unavailable> {
    let (trust, certificate, key) = issue(management, brief, AuthorityName::Cluster).await?;
    // The reconciliation has looked at the authority; one that is another by now is its business first.
    if trust != brief.trust {
        let name = names::authority_secret(&brief.cluster.name, AuthorityName::Cluster);
        return Err(Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: its certificate has changed")));
    }
    let of_each = if brief.cluster.spec.control_plane.register_nodes {
        BTreeMap::new()
    } else {
        connect_to_each(brief, &certificate, &key).await?
    };
    Ok(Clients { shared: connect(brief, &brief.cluster.endpoint, &certificate, &key).await?, of_each })
}

/// Keyplane's clients of the API servers at their own addresses, by node, all with one certificate.
pub(super) async fn own_at_each(management: &Client, brief: &Brief) -> Result<BTreeMap<String, Client>, Unavailable> {
    let (_, certificate, key) = issue(management, brief, AuthorityName::Cluster).await?;
    connect_to_each(brief, &certificate, &key).await
}

async fn connect_to_each(brief: &Brief, certificate: &str, key: &str) -> Result<BTreeMap<String, Client>, Unavailable> {
    let mut clients = BTreeMap::new();
    for node in &brief.cluster.nodes {
        clients.insert(node.name.clone(), connect(brief, &node.local_endpoint(), certificate, key).await?);
    }
    Ok(clients)
}

/// A client of the target's etcd. etcd asks for no more than a certificate of its authority.
pub(super) async fn etcd(management: &Client, brief: &Brief) -> Result<Credentials, Unavailable> {
    let (trust, certificate, key) = issue(management, brief, AuthorityName::Etcd).await?;
    Ok(Credentials::new(&trust, &certificate, &key))
}

/// What an authority's certificate is, and a certificate and key of our own from it.
async fn issue(
    management: &Client,
    brief: &Brief,
    authority: AuthorityName,
) -> Result<(String, String, String), Unavailable> {
    let name = names::authority_secret(&brief.cluster.name, authority);
    let secret = read(management, brief, &name).await?;
    if objects::is_signed_outside(&secret) {
        let set = AuthoritySet::from_secret(authority.name(), &secret);
        let set = set.map_err(|error| Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: {error}")))?;
        let (own, own_key) = signed_outside(management, brief, authority).await?;
        return Ok((set.bundle(), own, own_key));
    }
    let issued = tokio::task::spawn_blocking(move || {
        let set = AuthoritySet::from_secret(authority.name(), &secret)?;
        let issued = target_client::issue_client(client_subject(), set.issuer(false), Timestamp::now());
        let (own, own_key) = issued.map_err(|error| error.to_string())?;
        Ok((set.bundle(), own, own_key))
    });
    let failed = |error: String| Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: {error}"));
    issued.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
}

/// The certificate and key that are kept, since no key to make them with is here.
async fn signed_outside(
    management: &Client,
    brief: &Brief,
    authority: AuthorityName,
) -> Result<(String, String), Unavailable> {
    let name = names::own_secret(&brief.cluster.name);
    let secrets: Api<Secret> = Api::namespaced(management.clone(), &brief.cluster.namespace);
    let failed = |error: kube::Error| Unavailable::new(reasons::NO_CLIENT, format!("reading Secret {name}: {error}"));
    let found = secrets.get_opt(&name).await.map_err(failed)?;
    found.and_then(|secret| own_credential(&secret, authority)).ok_or_else(|| {
        let message =
            format!("Keyplane's own certificate of {} in Secret {name} waits for its signer", authority.name());
        Unavailable::new(reasons::WAITING_FOR_SIGNER, message)
    })
}

/// A client of the target as its super-admin, from the first node's kubeconfig.
pub(super) async fn super_admin(management: &Client, brief: &Brief) -> Result<Client, Unavailable> {
    let missing = || {
        Unavailable::new(
            reasons::NO_SUPER_ADMIN,
            "rights are missing in the target, and the first node's Secret has no super-admin.conf to grant them with",
        )
    };
    let first = brief.cluster.nodes.first().ok_or_else(missing)?;
    let secret = read(management, brief, &names::node_secret(&brief.cluster.name, &first.name)).await?;
    let credential = objects::text(&secret, "super-admin.conf").and_then(kubeconfig::embedded_credential);
    let (certificate, key) = credential.ok_or_else(missing)?;
    connect(brief, &brief.cluster.endpoint, &certificate, &key).await
}

pub(super) async fn read(management: &Client, brief: &Brief, name: &str) -> Result<Secret, Unavailable> {
    let secrets: Api<Secret> = Api::namespaced(management.clone(), &brief.cluster.namespace);
    let failed = |error: kube::Error| Unavailable::new(reasons::NO_CLIENT, format!("reading Secret {name}: {error}"));
    secrets.get(name).await.map_err(failed)
}

async fn connect(brief: &Brief, server: &Endpoint, certificate: &str, key: &str) -> Result<Client, Unavailable> {
    let client = target_client::connect(brief.cluster.proxy_url(), server, &brief.trust, certificate, key).await;
    client.map_err(|error| Unavailable::new(reasons::NO_CLIENT, error.to_string()))
}
