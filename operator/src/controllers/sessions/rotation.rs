//! Probes a target's servers while an authority or key is rotated: what each takes and presents, with credentials of the
//! old one and of the new one, made for the purpose and never kept.

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

use super::credentials;
use super::dial::{self, Identity, Question};
use super::preparation::Unavailable;
use super::{Brief, Briefed, Findings};
use crate::target_client::{CLIENT_VALIDITY, issue_client};
use keyplane_core::authorities::AuthoritySet;
use keyplane_core::etcd::CLIENT_PORT;
use keyplane_core::model::API_SERVER_PORT;
use keyplane_core::names;
use keyplane_core::objects;
use keyplane_core::pki::AuthorityName;
use keyplane_core::pki::{Authority, CertificateFacts, Subject, certificates_in};
use keyplane_core::rotation::{RotationFacts, Server, Stage};

/// How often everything is asked again while something is rotated.
const PERIOD: Duration = Duration::from_secs(5);
/// The kubelet's port (`ports.KubeletPort` of Kubernetes).
const KUBELET_PORT: u16 = 10250;
/// Who is asking: a user without rights, to whom a server that knows it says so.
const PROBE: &str = "keyplane:probe";
/// The common name by which an API server knows one in front of it (kubeadm's `requestheader-allowed-names`).
const FRONT_PROXY: &str = "front-proxy-client";

/// Where the API server tells aggregated API servers whom to believe.
const AUTHENTICATION: &str = "extension-apiserver-authentication";
const CLIENT_AUTHORITIES: &str = "client-ca-file";
const FRONT_PROXY_AUTHORITIES: &str = "requestheader-client-ca-file";
/// What every namespace has (`pkg/controller/certificates/rootcacertpublisher`).
const ROOT_AUTHORITIES: &str = "kube-root-ca.crt";

/// A path that every user may read, if the API server knows the user.
const OF_API_SERVER: Question = Question { path: "/api", remote_user: None };
const AS_FRONT_PROXY: Question = Question { path: "/api", remote_user: Some(PROBE) };
/// Nobody may, without rights: 403 for who is known and 401 for who is not.
const OF_KUBELET: Question = Question { path: "/metrics", remote_user: None };
const OF_ETCD: Question = Question { path: "/version", remote_user: None };

/// The task's parts.
pub(super) struct Probes {
    pub(super) briefs: watch::Receiver<Arc<Brief>>,
    pub(super) findings: Findings,
    pub(super) management: Client,
}

/// An identity of each of two authorities, by the fingerprint of its certificate.
type Identities = Vec<(String, Identity)>;

/// Credentials of the authorities that are being rotated.
#[derive(Default)]
struct Credentials {
    of: BTreeMap<AuthorityName, Identities>,
    /// The authorities that are being taken away.
    dropped: Vec<Dropped>,
}

/// An authority that is being taken away.
struct Dropped {
    authority: CertificateFacts,
    /// The fingerprints of those that were revoked. They go with it: nobody is probed with them.
    revoked: Vec<String>,
}

impl Dropped {
    fn fingerprint(&self) -> String {
        self.authority.fingerprint()
    }

    /// Whether it is this one. It may be there with an earlier certificate of its key, from before it was renewed.
    fn is(&self, found: &CertificateFacts) -> bool {
        found.is_renewal_of(&self.authority) || self.revoked.contains(&found.fingerprint())
    }
}

/// With what it is asked.
struct Means {
    credentials: Credentials,
    /// Keyplane's own client.
    shared: Client,
    /// The same at each API server's own address, by node.
    of_each: BTreeMap<String, Client>,
}

impl Briefed for Probes {
    fn briefs(&self) -> watch::Receiver<Arc<Brief>> {
        self.briefs.clone()
    }

    async fn work(&mut self, brief: &Brief) {
        if !brief.is_rotating {
            self.learn(RotationFacts::default());
            return std::future::pending().await;
        }
        // None of these credentials outlives that.
        let renewal = Instant::now() + CLIENT_VALIDITY / 2;
        let means = match self.means(brief).await {
            Ok(means) => means,
            Err(unavailable) => {
                tracing::info!(cluster = %self.findings.object, message = unavailable.message, "no probes");
                return sleep(PERIOD).await;
            }
        };
        while Instant::now() < renewal {
            self.learn(gather(brief, &means).await);
            sleep(PERIOD).await;
        }
    }
}

impl Probes {
    async fn means(&self, brief: &Brief) -> Result<Means, Unavailable> {
        Ok(Means {
            credentials: self.credentials(brief).await?,
            shared: credentials::own(&self.management, brief).await?.shared,
            of_each: credentials::own_at_each(&self.management, brief).await?,
        })
    }

    /// Keeps what the probes say; what the session says of it stays.
    fn learn(&self, facts: RotationFacts) {
        self.findings.learn(|known| {
            let prepared = known.rotation.prepared.take();
            known.rotation = RotationFacts { prepared, ..facts };
        });
    }

    /// Makes a credential from each authority of each rotation.
    async fn credentials(&self, brief: &Brief) -> Result<Credentials, Unavailable> {
        let mut credentials = Credentials::default();
        for name in brief.cluster.authority_names() {
            let secret_name = names::authority_secret(&brief.cluster.name, name);
            let secret = credentials::read(&self.management, brief, &secret_name).await?;
            let made = tokio::task::spawn_blocking(move || identities(name, &secret));
            let failed = |error: String| Unavailable::new(reasons::NO_CLIENT, format!("Secret {secret_name}: {error}"));
            let (identities, dropped) = made.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
            credentials.of.insert(name, identities);
            credentials.dropped.extend(dropped);
        }
        Ok(credentials)
    }
}

/// An identity of each of the two authorities, and which one is being taken away; none where nothing is rotated.
fn identities(name: AuthorityName, secret: &Secret) -> Result<(Identities, Option<Dropped>), String> {
    let set = AuthoritySet::from_secret(name.name(), secret)?;
    let Some((old, new)) = set.old_and_new() else { return Ok((vec![], None)) };
    let user = if name == AuthorityName::FrontProxy { FRONT_PROXY } else { PROBE };
    let identity = |authority: &Authority| {
        let issued =
            issue_client(Subject::user(user), authority, Timestamp::now()).map_err(|error| error.to_string())?;
        Ok::<_, String>((authority.facts().fingerprint(), Identity { certificate: issued.0, key: issued.1 }))
    };
    let dropped = (set.stage() >= Some(Stage::Drop))
        .then(|| Dropped { authority: old.facts().clone(), revoked: set.revoked().to_vec() });
    Ok((vec![identity(old)?, identity(new)?], dropped))
}

async fn gather(brief: &Brief, Means { credentials, shared: client, of_each }: &Means) -> RotationFacts {
    let nodes = &brief.cluster.nodes;
    let of = |name: AuthorityName| credentials.of.get(&name).map_or(&[][..], Vec::as_slice);
    let api_servers = nodes.iter().map(async |node| {
        let address = SocketAddr::new(node.advertise_address, API_SERVER_PORT);
        let mut server = server(address, of(AuthorityName::Cluster), OF_API_SERVER).await;
        let proxied = self::server(address, of(AuthorityName::FrontProxy), AS_FRONT_PROXY).await;
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
        (node.name.clone(), server(address, of(AuthorityName::Etcd), OF_ETCD).await)
    });
    let (api_servers, etcd) = futures::future::join(join_all(api_servers), join_all(etcd)).await;
    let (client_authorities, front_proxy_authorities) =
        authentication(client, &credentials.dropped, api_servers.iter().map(|(_, server)| server)).await;
    RotationFacts {
        api_servers: api_servers.into_iter().collect(),
        etcd: etcd.into_iter().collect(),
        kubelets: kubelets(client, of(AuthorityName::Cluster)).await,
        root_authorities: root_authorities(client).await,
        client_authorities,
        front_proxy_authorities,
        prepared: None,
    }
}

/// Asks a server with each identity.
async fn server(address: SocketAddr, identities: &[(String, Identity)], question: Question) -> Server {
    let mut server = Server::default();
    for (authority, identity) in identities {
        let Some(answer) = dial::ask(address, identity, question).await else { continue };
        if !answer.presents.is_empty() {
            server.presents = answer.presents;
        }
        server.accepts.extend(answer.accepts.map(|accepts| (authority.clone(), accepts)));
    }
    server
}

/// The keys with which an API server verifies service-account tokens, as it publishes them.
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
            Some(address) => server(SocketAddr::new(address, KUBELET_PORT), identities, OF_KUBELET).await,
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

/// What each namespace holds.
async fn root_authorities(client: &Client) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let named = ListParams::default().fields(&format!("metadata.name={ROOT_AUTHORITIES}"));
    let found = Api::<ConfigMap>::all(client.clone()).list(&named).await.ok()?;
    let held = found.items.iter().map(|found| {
        let text = found.data.as_ref().and_then(|data| data.get("ca.crt")).map_or("", String::as_str);
        (found.namespace().unwrap_or_default(), fingerprints(text))
    });
    Some(held.collect())
}

/// Whom aggregated API servers are told to believe. API servers only ever add to it: what is being taken away is taken out
/// of it here, once no API server takes it any more and would write it again.
async fn authentication<'a>(
    client: &Client,
    dropped: &[Dropped],
    servers: impl Iterator<Item = &'a Server>,
) -> (Option<BTreeSet<String>>, Option<BTreeSet<String>>) {
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let Ok(found) = config_maps.get(AUTHENTICATION).await else { return (None, None) };
    let text = |key: &str| found.data.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
    let (clients, proxies) = (text(CLIENT_AUTHORITIES), text(FRONT_PROXY_AUTHORITIES));
    let names = |pem: &str| authorities_in(pem, dropped);
    let held = (Some(names(&clients)), Some(names(&proxies)));
    let servers: Vec<_> = servers.collect();
    let is_refused = |authority: &String| {
        let refuses = |server: &&Server| {
            let answers = [server.accepts.get(authority), server.accepts_front_proxy.get(authority)];
            answers.contains(&Some(&false))
        };
        !servers.is_empty() && servers.iter().all(refuses)
    };
    let gone: BTreeSet<_> = dropped.iter().map(Dropped::fingerprint).filter(is_refused).collect();
    let is_there = [&held.0, &held.1].into_iter().flatten().any(|held| !held.is_disjoint(&gone));
    if !is_there {
        return held;
    }
    let patch = json!({
        "metadata": {"resourceVersion": found.resource_version(), "uid": found.uid()},
        "data": {CLIENT_AUTHORITIES: without(&clients, &gone, dropped), FRONT_PROXY_AUTHORITIES: without(&proxies, &gone, dropped)},
    });
    if let Err(error) = config_maps.patch(AUTHENTICATION, &PatchParams::default(), &Patch::Merge(&patch)).await {
        tracing::info!(%error, "{AUTHENTICATION} not changed");
    }
    held
}

fn fingerprints(pem: &str) -> BTreeSet<String> {
    let certificates = certificates_in("a bundle", pem).unwrap_or_default();
    certificates.iter().map(CertificateFacts::fingerprint).collect()
}

/// The authorities in a bundle, by their fingerprints; those that go with another one by that one's.
fn authorities_in(pem: &str, dropped: &[Dropped]) -> BTreeSet<String> {
    let certificates = certificates_in("a bundle", pem).unwrap_or_default();
    let name = |found: &CertificateFacts| {
        dropped.iter().find(|one| one.is(found)).map_or_else(|| found.fingerprint(), Dropped::fingerprint)
    };
    certificates.iter().map(name).collect()
}

/// The bundle without these authorities.
fn without(pem: &str, gone: &BTreeSet<String>, dropped: &[Dropped]) -> String {
    let blocks = pem.split_inclusive("-----END CERTIFICATE-----\n").filter(|block| {
        let held = authorities_in(block, dropped);
        held.is_empty() || held.is_disjoint(gone)
    });
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyplane_core::pki::valid_for;
    use keyplane_issuance::x509::{mint_authority, renew_authority};

    #[test]
    fn only_the_old_certificate_is_taken_out_of_a_bundle() {
        let mint = || {
            let (not_before, not_after) = valid_for(Timestamp::now(), Duration::from_hours(1));
            mint_authority("kubernetes", keyplane_crds::KeyAlgorithm::EcdsaP256, not_before, not_after).unwrap()
        };
        let (first, new) = (mint(), mint());
        let (not_before, not_after) = valid_for(Timestamp::now(), Duration::from_hours(9));
        let old = renew_authority(&first, not_before, not_after).unwrap();
        let bundle = [&first, &old, &new].map(Authority::certificate_pem).concat();
        assert_eq!(fingerprints(&bundle).len(), 3);
        let dropped = [Dropped { authority: old.facts().clone(), revoked: vec![] }];
        assert!(authorities_in(first.certificate_pem(), &dropped).contains(&old.facts().fingerprint()));
        // Also the certificate that it had before it was renewed: the key is the same.
        assert_eq!(without(&bundle, &[old.facts().fingerprint()].into(), &dropped), new.certificate_pem());
        assert_eq!(without(&bundle, &BTreeSet::new(), &dropped), bundle);
    }
}
