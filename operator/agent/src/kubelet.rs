//! Replaces the kubelet's certificates with ones of another CA. The keys are new, and the CSRs are like the kubelet's
//! own.

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

use super::files::Root;
use super::index::NodeFile;
use super::kubelet_certificates::{CsrTemplate, DIRECTORY, Kind, certificate_part, check, csr_template, find_ca};
use super::own_kubeconfig::KUBELET_KUBECONFIGS;
use super::trusted_cas::needs_client_replacement;
use keyplane_client::causes;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::pki::CertificateFacts;
use keyplane_issuance::x509::{generate, request};

/// Time for a CSR to be approved and signed. Afterwards a new CSR is created: the controller-manager deletes approved
/// CSRs that are not signed after an hour, and a user may have deleted this one.
const CSR_TIMEOUT: Duration = Duration::from_mins(10);

/// The change of the kubelet's certificates to another CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Name of the node.
    pub node: String,
    /// SHA-256 of the new CA's certificate.
    pub ca: String,
    /// Trust bundle of the node.
    pub bundle: String,
}

impl Move {
    /// Returns the CSRs to create; none if the new CA has issued all certificates.
    ///
    /// # Errors
    /// The CA is not in the bundle, or the kubelet has no certificate.
    pub fn csr_templates(&self, root: &Root) -> Result<Vec<CsrTemplate>, String> {
        let ca = find_ca(&self.bundle, &self.ca)?;
        let mut templates = vec![];
        for kind in Kind::ALL {
            let current = root.read(&kind.link()).map_err(|error| format!("{}: {error}", kind.link()))?;
            let Some(current) = current.and_then(|pair| String::from_utf8(pair).ok()) else {
                // A kubelet with a self-signed serving certificate has no such pair. A kubelet without the client pair
                // has not finished its bootstrap.
                if kind == Kind::Server {
                    continue;
                }
                return Err(format!("{} does not exist: the kubelet has no certificate of its own yet", kind.link()));
            };
            templates.extend(csr_template(kind, &self.node, &current, &ca)?);
        }
        Ok(templates)
    }

    /// Obtains new certificates and keys. `waits` receives a description of the pending CSR.
    ///
    /// # Errors
    /// A CSR is denied, times out, or is answered with another certificate.
    pub async fn obtain(self, root: Root, waits: watch::Sender<Option<String>>) -> Result<Vec<Pair>, String> {
        let ca = find_ca(&self.bundle, &self.ca)?;
        let mut pairs = vec![];
        for template in self.csr_templates(&root)? {
            let content = obtain(&template, &ca, &root, &waits).await?;
            pairs.push(Pair { kind: template.kind, content });
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
    /// Stores the pair where the kubelet loads it at its start. The previous pair stays beside it.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn store(self, root: &Root) -> Result<(), String> {
        let (path, link) = (self.kind.file(Timestamp::now()), self.kind.link());
        let (user, group) = ("root".to_owned(), "root".to_owned());
        let file = NodeFile { path: path.clone(), mode: 0o600, user, group, content: self.content.into_bytes() };
        root.write(&file).map_err(|error| format!("{path}: {error}"))?;
        root.swap_link(&link, &path).map_err(|error| format!("{link}: {error}"))?;
        tracing::info!(path, "stored a certificate of the new CA for the kubelet");
        Ok(())
    }
}

/// Returns the client certificate from the node's files, if no trusted CA has issued the kubelet's own one: a kubelet
/// whose certificate the API server rejects can't create a CSR.
///
/// # Errors
/// An error of the file system.
pub fn replacement_client(root: &Root, kubeconfig: &[u8], bundle: &str) -> Result<Option<Pair>, String> {
    let link = Kind::Client.link();
    let current = root.read(&link).map_err(|error| format!("{link}: {error}"))?.unwrap_or_default();
    let current = certificate_part(&String::from_utf8_lossy(&current));
    let credential = std::str::from_utf8(kubeconfig).ok().and_then(embedded_credential);
    let usable = credential.filter(|(certificate, _)| needs_client_replacement(&current, certificate, bundle));
    Ok(usable
        .map(|(certificate, key)| Pair { kind: Kind::Client, content: format!("{}\n{key}", certificate.trim_end()) }))
}

/// Removes old pairs of the kubelet, which the kubelet itself never does. The current and the previous pair stay, for a
/// manual rollback.
///
/// # Errors
/// An error of the file system.
pub fn prune(root: &Root) -> Result<(), String> {
    let error_with_path = |error: std::io::Error| format!("{DIRECTORY}: {error}");
    let files = root.files_in(DIRECTORY).map_err(error_with_path)?;
    let names: Vec<_> = files.iter().map(String::as_str).collect();
    for kind in Kind::ALL {
        let Some(target) = root.link_target(&kind.link()) else { continue };
        for name in kind.outdated(&names, &target) {
            root.remove(&format!("{DIRECTORY}/{name}")).map_err(error_with_path)?;
            tracing::info!(name, "removed an old certificate of the kubelet");
        }
    }
    Ok(())
}

/// Obtains one new pair in the format of the kubelet's certificate store: the certificate, then the key.
async fn obtain(
    template: &CsrTemplate,
    ca: &CertificateFacts,
    root: &Root,
    waits: &watch::Sender<Option<String>>,
) -> Result<String, String> {
    let key = generate(KeyAlgorithm::EcdsaP256).map_err(|error| error.to_string())?;
    let text = request(&template.subject, &template.names, &key).map_err(|error| error.to_string())?;
    let requests: Api<CertificateSigningRequest> = Api::all(kubelets_client(root).await?);
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(text.into_bytes()),
            signer_name: template.kind.signer().to_owned(),
            usages: Some(template.kind.usages()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let what = template.kind.name();
    let created = requests.create(&PostParams::default(), &object).await;
    let created = created
        .map_err(|error| format!("creating a CertificateSigningRequest for {what}: {}", causes(&error)))?
        .name_any();
    waits.send_replace(Some(format!(
        "CertificateSigningRequest {created} of the target cluster ({what}) to be approved and signed"
    )));
    let answered = timeout(CSR_TIMEOUT, await_condition(requests, &created, Answered)).await;
    let answered = answered.map_err(|_| {
        let minutes = CSR_TIMEOUT.as_secs() / 60;
        format!("{what}: CertificateSigningRequest {created} was not signed within {minutes} minutes")
    })?;
    let answered = answered.map_err(|error| format!("{what}: {}", causes(&error)))?;
    let status = answered.and_then(|request| request.status).unwrap_or_default();
    let Some(certificate) = status.certificate else {
        let why = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ != "Approved");
        let why = why.and_then(|condition| condition.message).unwrap_or_default();
        return Err(format!("{what}: CertificateSigningRequest {created} was denied or failed: {why}"));
    };
    let certificate = String::from_utf8(certificate.0).map_err(|_| format!("{what}: the certificate is not PEM"))?;
    check(template, &certificate, &key, ca)?;
    Ok(format!("{}\n{}", certificate.trim_end(), key.pem()))
}

/// The condition that a CSR has its certificate, or was denied or failed.
struct Answered;

impl Condition<CertificateSigningRequest> for Answered {
    fn matches_object(&self, object: Option<&CertificateSigningRequest>) -> bool {
        let Some(status) = object.and_then(|object| object.status.as_ref()) else { return false };
        let is_bad = |type_: &str| type_ == "Denied" || type_ == "Failed";
        status.certificate.is_some() || status.conditions.iter().flatten().any(|condition| is_bad(&condition.type_))
    }
}

/// Creates a client of the target cluster with the kubelet's own credential.
async fn kubelets_client(root: &Root) -> Result<Client, String> {
    let path = KUBELET_KUBECONFIGS.into_iter().find(|path| root.at(path).exists());
    let path = path.ok_or_else(|| format!("{} does not exist", KUBELET_KUBECONFIGS[0]))?;
    let error_with_path = |error: &dyn std::error::Error| format!("{path}: {}", causes(error));
    let kubeconfig = Kubeconfig::read_from(root.at(path)).map_err(|error| error_with_path(&error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.map_err(|error| error_with_path(&error))?).map_err(|error| error_with_path(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn prune_keeps_current_and_previous_pair() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root(folder.path().to_owned());
        assert_eq!(prune(&root), Ok(()), "a node without a kubelet");
        let directory = root.at(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        for day in 19..=23 {
            for kind in Kind::ALL {
                fs::write(directory.join(format!("{}-2026-11-{day}-12-00-00.pem", kind.name())), "pair").unwrap();
            }
        }
        fs::write(directory.join("kubelet.key"), "foreign").unwrap();
        // The newest client pair was not linked yet when the agent was killed. The server link does not exist.
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
