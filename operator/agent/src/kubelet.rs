//! Moves the kubelet's certificates to another authority: with new keys, asked for as the kubelet itself asks.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Config, ResourceExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::authorities::is_cut_off;
use super::files::Root;
use super::index::MachineFile;
use super::leaves::{DIRECTORY, Kind, Order, authority, certificate_part, check, order};
use super::own_kubeconfig::KUBELET_KUBECONFIGS;
use keyplane_client::causes;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::pki::{CertificateFacts, PrivateKey};
use keyplane_issuance::x509::generate;
use keyplane_issuance::x509::request;

/// A request that has no certificate after this time is made anew: the controller-manager deletes approved ones that are
/// not signed after an hour, and a person may have deleted this one.
const PATIENCE: Duration = Duration::from_mins(10);

/// From which authority the kubelet's certificates are to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The machine's name.
    pub node: String,
    /// The SHA-256 of the authority's certificate.
    pub authority: String,
    /// The machine's bundle.
    pub bundle: String,
}

impl Move {
    /// What is to be asked for; nothing if all is as it should be.
    ///
    /// # Errors
    /// If the authority or the kubelet's certificates are not there.
    pub fn orders(&self, root: &Root) -> Result<Vec<Order>, String> {
        let authority = authority(&self.bundle, &self.authority)?;
        let mut orders = vec![];
        for kind in Kind::ALL {
            let current = root.read(&kind.link()).map_err(|error| format!("{}: {error}", kind.link()))?;
            let Some(current) = current.and_then(|pair| String::from_utf8(pair).ok()) else {
                // One that signs its own serving certificate has no such pair; without the other it is not on its own.
                if kind == Kind::Server {
                    continue;
                }
                return Err(format!("{} is not there: the kubelet has no certificate of its own yet", kind.link()));
            };
            orders.extend(order(kind, &self.node, &current, &authority)?);
        }
        Ok(orders)
    }

    /// Gets new pairs. `waits` hears what is waited for.
    ///
    /// # Errors
    /// If one could not be had.
    pub async fn obtain(self, root: Root, waits: watch::Sender<Option<String>>) -> Result<Vec<Pair>, String> {
        let authority = authority(&self.bundle, &self.authority)?;
        let mut pairs = vec![];
        for order in self.orders(&root)? {
            let content = obtain(&order, &authority, &root, &waits).await?;
            pairs.push(Pair { kind: order.kind, content });
        }
        Ok(pairs)
    }
}

/// A new certificate and its key.
pub struct Pair {
    kind: Kind,
    content: String,
}

impl Pair {
    /// Puts it where the kubelet finds it when it starts. The pair before stays beside it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put(self, root: &Root) -> Result<(), String> {
        let (path, link) = (self.kind.file(Timestamp::now()), self.kind.link());
        let (user, group) = ("root".to_owned(), "root".to_owned());
        let file = MachineFile { path: path.clone(), mode: 0o600, user, group, content: self.content.into_bytes() };
        root.write(&file).map_err(|error| format!("{path}: {error}"))?;
        root.swap_link(&link, &path).map_err(|error| format!("{link}: {error}"))?;
        tracing::info!(path, "the kubelet has a certificate of the other authority");
        Ok(())
    }
}

/// The client certificate that came with the machine's files, if the kubelet's own is of no use any more: a kubelet that is
/// refused can't ask for another.
///
/// # Errors
/// What the file system says.
pub fn given(root: &Root, kubeconfig: &[u8], bundle: &str) -> Result<Option<Pair>, String> {
    let link = Kind::Client.link();
    let current = root.read(&link).map_err(|error| format!("{link}: {error}"))?.unwrap_or_default();
    let current = certificate_part(&String::from_utf8_lossy(&current));
    let credential = std::str::from_utf8(kubeconfig).ok().and_then(embedded_credential);
    let given = credential.filter(|(certificate, _)| is_cut_off(&current, certificate, bundle));
    Ok(given
        .map(|(certificate, key)| Pair { kind: Kind::Client, content: format!("{}\n{key}", certificate.trim_end()) }))
}

/// Removes the kubelet's pairs from before the last one: neither the kubelet nor a move ever does. The one before stays, for
/// who has to go back by hand.
///
/// # Errors
/// What the file system says.
pub fn prune(root: &Root) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{DIRECTORY}: {error}");
    let files = root.files_in(DIRECTORY).map_err(told)?;
    let names: Vec<_> = files.iter().map(String::as_str).collect();
    for kind in Kind::ALL {
        let Some(target) = root.link_target(&kind.link()) else { continue };
        for name in kind.outdated(&names, &target) {
            root.remove(&format!("{DIRECTORY}/{name}")).map_err(told)?;
            tracing::info!(name, "removed a former pair of the kubelet");
        }
    }
    Ok(())
}

/// One new pair, as the kubelet's store has it: the certificate, then the key.
async fn obtain(
    order: &Order,
    authority: &CertificateFacts,
    root: &Root,
    waits: &watch::Sender<Option<String>>,
) -> Result<String, String> {
    let key = generate(KeyAlgorithm::EcdsaP256).map_err(|error| error.to_string())?;
    let text = request(&order.subject, &order.names, &key).map_err(|error| error.to_string())?;
    let requests: Api<CertificateSigningRequest> = Api::all(kubelets_client(root).await?);
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(text.into_bytes()),
            signer_name: order.kind.signer().to_owned(),
            usages: Some(order.kind.usages()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let what = order.kind.name();
    let made = requests.create(&PostParams::default(), &object).await;
    let made = made.map_err(|error| format!("asking for {what}: {}", causes(&error)))?.name_any();
    waits.send_replace(Some(format!(
        "CertificateSigningRequest {made} of the target ({what}) to be approved and signed"
    )));
    let answered = timeout(PATIENCE, await_condition(requests, &made, Answered)).await;
    let answered = answered.map_err(|_| format!("{what}: CertificateSigningRequest {made} was not answered"))?;
    let answered = answered.map_err(|error| format!("{what}: {}", causes(&error)))?;
    let status = answered.and_then(|request| request.status).unwrap_or_default();
    let Some(certificate) = status.certificate else {
        let why = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ != "Approved");
        let why = why.and_then(|condition| condition.message).unwrap_or_default();
        return Err(format!("{what}: CertificateSigningRequest {made} was refused: {why}"));
    };
    let certificate = String::from_utf8(certificate.0).map_err(|_| format!("{what}: the certificate is no text"))?;
    check(order, &certificate, &key, authority)?;
    Ok(format!("{}\n{}", certificate.trim_end(), key.pem()))
}

/// Whether a request has its certificate, or never gets one.
struct Answered;

impl Condition<CertificateSigningRequest> for Answered {
    fn matches_object(&self, object: Option<&CertificateSigningRequest>) -> bool {
        let Some(status) = object.and_then(|object| object.status.as_ref()) else { return false };
        let is_bad = |type_: &str| type_ == "Denied" || type_ == "Failed";
        status.certificate.is_some() || status.conditions.iter().flatten().any(|condition| is_bad(&condition.type_))
    }
}

/// A client of the target with the kubelet's own credential.
async fn kubelets_client(root: &Root) -> Result<Client, String> {
    let path = KUBELET_KUBECONFIGS.into_iter().find(|path| root.at(path).exists());
    let path = path.ok_or_else(|| format!("{} is not there", KUBELET_KUBECONFIGS[0]))?;
    let told = |error: &dyn std::error::Error| format!("{path}: {}", causes(error));
    let kubeconfig = Kubeconfig::read_from(root.at(path)).map_err(|error| told(&error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.map_err(|error| told(&error))?).map_err(|error| told(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_pair_in_use_and_the_one_before_stay_and_older_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root(folder.path().to_owned());
        assert_eq!(prune(&root), Ok(()), "a machine without a kubelet");
        let directory = root.at(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        for day in 19..=23 {
            for kind in Kind::ALL {
                fs::write(directory.join(format!("{}-2026-11-{day}-12-00-00.pem", kind.name())), "pair").unwrap();
            }
        }
        fs::write(directory.join("kubelet.key"), "of somebody").unwrap();
        // The client's was not linked yet when the agent was killed; the server's link is gone.
        symlink(directory.join("kubelet-client-2026-11-22-12-00-00.pem"), root.at(&Kind::Client.link())).unwrap();
        prune(&root).unwrap();
        let left = |prefix: &str| {
            let mut left = root.files_in(DIRECTORY).unwrap();
            left.retain(|name| name.starts_with(prefix));
            left.sort();
            left
        };
        let days = ["21", "22", "23"].map(|day| format!("kubelet-client-2026-11-{day}-12-00-00.pem"));
        assert_eq!(left("kubelet-client"), days);
        assert_eq!(left("kubelet-server").len(), 5);
        assert_eq!(left("kubelet.key").len(), 1);
        assert!(fs::read(root.at(&Kind::Client.link())).is_ok());
    }
}
