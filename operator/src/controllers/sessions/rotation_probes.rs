//! Probes a target cluster's servers during a rotation of a CA or key. Each probe connects once with a client
//! certificate of the old CA and once with one of the new CA, and reads the server's certificate. The client
//! certificates are issued for the probes and never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::tls_probe::{self, Identity, ProbeRequest};
use super::unavailable::Unavailable;
use super::{SessionSpec, SessionTask, TargetStatus, credentials};
use crate::target_client::{CLIENT_VALIDITY, issue_client};
use keyplane_core::certificate_authorities::CaSet;
use keyplane_core::etcd::CLIENT_PORT;
use keyplane_core::model::API_SERVER_PORT;
use keyplane_core::names;
use keyplane_core::pki::{CaName, CertificateAuthority, CertificateFacts, Subject, certificates_in};
use keyplane_core::rotation::{RotationFacts, Server, Stage};

/// Interval of probes during a rotation.
const PERIOD: Duration = Duration::from_secs(5);
/// The kubelet's port (`ports.KubeletPort` of Kubernetes).
const KUBELET_PORT: u16 = 10250;
/// User of the probes. The user has no permissions: a server that accepts the certificate answers 403.
const PROBE: &str = "keyplane:probe";
/// The common name of a front proxy (kubeadm's `requestheader-allowed-names`).
const FRONT_PROXY: &str = "front-proxy-client";

/// The ConfigMap with the client CAs for aggregated API servers.
const AUTHENTICATION: &str = "extension-apiserver-authentication";
const CLIENT_CAS: &str = "client-ca-file";
const FRONT_PROXY_CAS: &str = "requestheader-client-ca-file";
/// The ConfigMap in every namespace (`pkg/controller/certificates/rootcacertpublisher`).
const ROOT_CAS: &str = "kube-root-ca.crt";

/// A path that every authenticated user may read.
const API_SERVER_REQUEST: ProbeRequest = ProbeRequest { path: "/api", remote_user: None };
const FRONT_PROXY_REQUEST: ProbeRequest = ProbeRequest { path: "/api", remote_user: Some(PROBE) };
/// A path that requires permissions: the answer is 403 for an accepted certificate, and 401 for a rejected one.
const KUBELET_REQUEST: ProbeRequest = ProbeRequest { path: "/metrics", remote_user: None };
const ETCD_REQUEST: ProbeRequest = ProbeRequest { path: "/version", remote_user: None };

/// The probing task of one target cluster.
pub(super) struct Probes {
    pub(super) specs: watch::Receiver<Arc<SessionSpec>>,
    pub(super) target_status: TargetStatus,
    pub(super) management: Client,
}

/// A client identity of each of two CAs, with the fingerprint of the CA.
type Identities = Vec<(String, Identity)>;

/// Credentials of the rotating CAs.
#[derive(Default)]
struct Credentials {
    of: BTreeMap<CaName, Identities>,
    /// The CAs that are being removed.
    removed: Vec<RemovedCa>,
}

/// A CA that is being removed.
struct RemovedCa {
    ca: CertificateFacts,
    /// The fingerprints of revoked CAs, which are removed together with the CA. No server is probed with them.
    revoked: Vec<String>,
}

impl RemovedCa {
    fn fingerprint(&self) -> String {
        self.ca.fingerprint()
    }

    /// Returns whether the certificate is of this CA, also if it was issued before a renewal with the same key.
    fn is(&self, found: &CertificateFacts) -> bool {
        found.is_renewal_of(&self.ca) || self.revoked.contains(&found.fingerprint())
    }
}

/// Clients and credentials of the probes.
struct ProbeClients {
    credentials: Credentials,
    /// Keyplane's client of the control-plane endpoint.
    shared: Client,
    /// Keyplane's client of each API server's own address, by node.
    of_each: BTreeMap<String, Client>,
}

impl SessionTask for Probes {
    fn specs(&self) -> watch::Receiver<Arc<SessionSpec>> {
        self.specs.clone()
    }

    async fn work(&mut self, spec: &SessionSpec) {
        if !spec.is_rotating {
            self.update(RotationFacts::default());
            return std::future::pending().await;
        }
        // The credentials are replaced before they expire.
        let renewal = Instant::now() + CLIENT_VALIDITY / 2;
        let probe_clients = match self.probe_clients(spec).await {
            Ok(probe_clients) => probe_clients,
            Err(unavailable) => {
                tracing::info!(cluster = %self.target_status.object, message = unavailable.message, "rotation not probed");
                return sleep(PERIOD).await;
            }
        };
        while Instant::now() < renewal {
            self.update(gather(spec, &probe_clients).await);
            sleep(PERIOD).await;
        }
    }
}

impl Probes {
    async fn probe_clients(&self, spec: &SessionSpec) -> Result<ProbeClients, Unavailable> {
        Ok(ProbeClients {
            credentials: self.credentials(spec).await?,
            shared: credentials::own(&self.management, spec).await?.shared,
            of_each: credentials::own_at_each(&self.management, spec).await?,
        })
    }

    /// Updates the results of the probes. The field `prepared` belongs to the session.
    fn update(&self, facts: RotationFacts) {
        self.target_status.update(|known| {
            let prepared = known.rotation.prepared.take();
            known.rotation = RotationFacts { prepared, ..facts };
        });
    }

    /// Issues a credential of each CA of each rotation.
    async fn credentials(&self, spec: &SessionSpec) -> Result<Credentials, Unavailable> {
        let mut credentials = Credentials::default();
        for name in spec.cluster.ca_names() {
            let secret_name = names::ca_secret(&spec.cluster.name, name);
            let secret = credentials::read(&self.management, spec, &secret_name).await?;
            let issued = tokio::task::spawn_blocking(move || identities(name, &secret));
            let failed = |error: String| Unavailable::new(reasons::NO_CLIENT, format!("Secret {secret_name}: {error}"));
            let (identities, removed) = issued.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
            credentials.of.insert(name, identities);
            credentials.removed.extend(removed);
        }
        Ok(credentials)
    }
}

/// Issues an identity of the old and the new CA, and returns the CA that is being removed; empty without a rotation.
fn identities(name: CaName, secret: &Secret) -> Result<(Identities, Option<RemovedCa>), String> {
    let set = CaSet::from_secret(name.name(), secret)?;
    let Some((old, new)) = set.old_and_new() else { return Ok((vec![], None)) };
    let user = if name == CaName::FrontProxy { FRONT_PROXY } else { PROBE };
    let identity = |ca: &CertificateAuthority| {
        let issued = issue_client(Subject::user(user), ca, Timestamp::now()).map_err(|error| error.to_string())?;
        Ok::<_, String>((ca.facts().fingerprint(), Identity { certificate: issued.0, key: issued.1 }))
    };
    let removed = (set.stage() >= Some(Stage::Drop))
        .then(|| RemovedCa { ca: old.facts().clone(), revoked: set.revoked().to_vec() });
    Ok((vec![identity(old)?, identity(new)?], removed))
}

async fn gather(
    spec: &SessionSpec,
    ProbeClients { credentials, shared: client, of_each }: &ProbeClients,
) -> RotationFacts {
    let nodes = &spec.cluster.nodes;
    let of = |name: CaName| credentials.of.get(&name).map_or(&[][..], Vec::as_slice);
    let api_servers = nodes.iter().map(async |node| {
        let address = SocketAddr::new(node.advertise_address, API_SERVER_PORT);
        let mut server = server(address, of(CaName::Cluster), API_SERVER_REQUEST).await;
        let proxied = self::server(address, of(CaName::FrontProxy), FRONT_PROXY_REQUEST).await;
        server.accepts_front_proxy = proxied.accepts;
        if server.presents.is_empty() {
            server.presents = proxied.presents;
        }
        if let Some(client) = of_each.get(&node.name) {
            server.token_keys = token_keys(client).await;
        }
        (node.name.clone(), server)
    });
    let etcd = nodes.iter().map(async |node| {
        let address = SocketAddr::new(node.advertise_address, CLIENT_PORT);
        (node.name.clone(), server(address, of(CaName::Etcd), ETCD_REQUEST).await)
    });
    let (api_servers, etcd) = futures::future::join(join_all(api_servers), join_all(etcd)).await;
    let (client_cas, front_proxy_cas) =
        authentication(client, &credentials.removed, api_servers.iter().map(|(_, server)| server)).await;
    RotationFacts {
        api_servers: api_servers.into_iter().collect(),
        etcd: etcd.into_iter().collect(),
        kubelets: kubelets(client, of(CaName::Cluster)).await,
        root_cas: root_cas(client).await,
        client_cas,
        front_proxy_cas,
        prepared: None,
    }
}

/// Probes a server with each identity.
async fn server(address: SocketAddr, identities: &[(String, Identity)], request: ProbeRequest) -> Server {
    let mut server = Server::default();
    for (ca, identity) in identities {
        let Some(answer) = tls_probe::probe(address, identity, request).await else { continue };
        if !answer.presents.is_empty() {
            server.presents = answer.presents;
        }
        server.accepts.extend(answer.accepts.map(|accepts| (ca.clone(), accepts)));
    }
    server
}

/// Reads the key IDs with which an API server verifies service account tokens, from its JWKS.
async fn token_keys(client: &Client) -> BTreeSet<String> {
    let Ok(request) = http::Request::get("/openid/v1/jwks").body(vec![]) else { return BTreeSet::new() };
    let answer: Result<Value, _> = client.request(request).await;
    let keys = answer.ok().and_then(|answer| answer["keys"].as_array().cloned()).unwrap_or_default();
    keys.iter().filter_map(|key| Some(key["kid"].as_str()?.to_owned())).collect()
}

async fn kubelets(client: &Client, identities: &[(String, Identity)]) -> Option<BTreeMap<String, Option<Server>>> {
    if identities.is_empty() {
        return None;
    }
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.ok()?;
    let kubelets = nodes.items.iter().map(async |node| {
        let answer = match address(node) {
            Some(address) => server(SocketAddr::new(address, KUBELET_PORT), identities, KUBELET_REQUEST).await,
            None => Server::default(),
        };
        let answered = !answer.presents.is_empty() || !answer.accepts.is_empty();
        (node.name_any(), answered.then_some(answer))
    });
    Some(join_all(kubelets).await.into_iter().collect())
}

fn address(node: &Node) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_deref().unwrap_or_default();
    addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()
}

/// Reads the fingerprints in the root CA ConfigMap of each namespace.
async fn root_cas(client: &Client) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let named = ListParams::default().fields(&format!("metadata.name={ROOT_CAS}"));
    let found = Api::<ConfigMap>::all(client.clone()).list(&named).await.ok()?;
    let held = found.items.iter().map(|found| {
        let text = found.data.as_ref().and_then(|data| data.get("ca.crt")).map_or("", String::as_str);
        (found.namespace().unwrap_or_default(), fingerprints(text))
    });
    Some(held.collect())
}

/// Reads the client CAs for aggregated API servers, and deletes removed CAs from them. API servers only add CAs to this
/// ConfigMap. A CA is deleted once every API server rejects it, and so none would add it again.
async fn authentication<'a>(
    client: &Client,
    removed: &[RemovedCa],
    servers: impl Iterator<Item = &'a Server>,
) -> (Option<BTreeSet<String>>, Option<BTreeSet<String>>) {
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let Ok(found) = config_maps.get(AUTHENTICATION).await else { return (None, None) };
    let text = |key: &str| found.data.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
    let (clients, proxies) = (text(CLIENT_CAS), text(FRONT_PROXY_CAS));
    let names = |pem: &str| cas_in(pem, removed);
    let held = (Some(names(&clients)), Some(names(&proxies)));
    let servers: Vec<_> = servers.collect();
    let is_rejected = |ca: &String| {
        let refuses = |server: &&Server| {
            let answers = [server.accepts.get(ca), server.accepts_front_proxy.get(ca)];
            answers.contains(&Some(&false))
        };
        !servers.is_empty() && servers.iter().all(refuses)
    };
    let gone: BTreeSet<_> = removed.iter().map(RemovedCa::fingerprint).filter(is_rejected).collect();
    let is_present = [&held.0, &held.1].into_iter().flatten().any(|held| !held.is_disjoint(&gone));
    if !is_present {
        return held;
    }
    let patch = json!({
        "metadata": {"resourceVersion": found.resource_version(), "uid": found.uid()},
        "data": {CLIENT_CAS: without(&clients, &gone, removed), FRONT_PROXY_CAS: without(&proxies, &gone, removed)},
    });
    if let Err(error) = config_maps.patch(AUTHENTICATION, &PatchParams::default(), &Patch::Merge(&patch)).await {
        tracing::info!(%error, "writing ConfigMap {AUTHENTICATION} failed");
    }
    held
}

fn fingerprints(pem: &str) -> BTreeSet<String> {
    let certificates = certificates_in("a bundle", pem).unwrap_or_default();
    certificates.iter().map(CertificateFacts::fingerprint).collect()
}

/// Returns the fingerprints of the CAs in a bundle. A revoked or renewed certificate counts as its removed CA.
fn cas_in(pem: &str, removed: &[RemovedCa]) -> BTreeSet<String> {
    let certificates = certificates_in("a bundle", pem).unwrap_or_default();
    let name = |found: &CertificateFacts| {
        removed.iter().find(|one| one.is(found)).map_or_else(|| found.fingerprint(), RemovedCa::fingerprint)
    };
    certificates.iter().map(name).collect()
}

/// Returns the bundle without these CAs.
fn without(pem: &str, gone: &BTreeSet<String>, removed: &[RemovedCa]) -> String {
    let blocks = pem.split_inclusive("-----END CERTIFICATE-----\n").filter(|block| {
        let held = cas_in(block, removed);
        held.is_empty() || held.is_disjoint(gone)
    });
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyplane_core::pki::valid_for;
    use keyplane_issuance::x509::{generate_ca, renew_ca};

    #[test]
    fn deletes_only_the_removed_ca_from_a_bundle() {
        let new_ca = || {
            let (not_before, not_after) = valid_for(Timestamp::now(), Duration::from_hours(1));
            generate_ca("kubernetes", keyplane_crds::KeyAlgorithm::EcdsaP256, not_before, not_after).unwrap()
        };
        let (first, new) = (new_ca(), new_ca());
        let (not_before, not_after) = valid_for(Timestamp::now(), Duration::from_hours(9));
        let old = renew_ca(&first, not_before, not_after).unwrap();
        let bundle = [&first, &old, &new].map(CertificateAuthority::certificate_pem).concat();
        assert_eq!(fingerprints(&bundle).len(), 3);
        let removed = [RemovedCa { ca: old.facts().clone(), revoked: vec![] }];
        assert!(cas_in(first.certificate_pem(), &removed).contains(&old.facts().fingerprint()));
        // The certificate from before the renewal is deleted too: the key is the same.
        assert_eq!(without(&bundle, &[old.facts().fingerprint()].into(), &removed), new.certificate_pem());
        assert_eq!(without(&bundle, &BTreeSet::new(), &removed), bundle);
    }
}
