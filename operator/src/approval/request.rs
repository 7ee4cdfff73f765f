//! A `CertificateSigningRequest` object, as far as the rules look at it.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;

use super::names::is_subdomain;
use super::pkcs10::Pkcs10;

/// The signer of kubelets' serving certificates.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// The signer of kubelets' client certificates.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// What a node's username begins with.
const NODE_USER_PREFIX: &str = "system:node:";

/// A `CertificateSigningRequest` object. All but `request` was written or checked by the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The version that is judged: an approval must be for this one.
    pub resource_version: String,
    /// The signer that is asked.
    pub signer_name: String,
    /// Who made the object. The API server fills this in from the credentials; a requester can't choose it.
    pub username: String,
    /// The groups of who made the object, filled in likewise.
    pub groups: Vec<String>,
    /// The usages that are asked for.
    pub usages: Vec<String>,
    /// PKCS#10 in PEM, as the requester wrote it.
    pub request: Vec<u8>,
    /// The lifetime that is asked for.
    pub expiration_seconds: Option<i32>,
    /// When the object was made.
    pub created: Option<Timestamp>,
    /// Whether the object is approved, denied, failed, signed or being deleted: then it is left alone.
    pub settled: bool,
}

impl SigningRequest {
    /// The name of the node that asks, from its username alone: nothing in the request itself is believed about who
    /// wrote it. `None` if the requester is no node.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.username.strip_prefix(NODE_USER_PREFIX).filter(|name| is_subdomain(name))
    }

    /// The name of the node that the request speaks of. Whoever wrote it may have lied: this is for telling people how far
    /// a machine has come, not for deciding anything.
    #[must_use]
    pub fn subject_node_name(&self) -> Option<String> {
        let request = Pkcs10::parse(&self.request).ok()?;
        let (_, common_name) = request.identity()?;
        common_name.strip_prefix(NODE_USER_PREFIX).filter(|name| is_subdomain(name)).map(str::to_owned)
    }
}

impl From<&CertificateSigningRequest> for SigningRequest {
    fn from(object: &CertificateSigningRequest) -> Self {
        let (metadata, spec) = (&object.metadata, &object.spec);
        // Any condition at all, as the signer and the in-tree approver have it: Approved, Denied, Failed, or one of a
        // later Kubernetes.
        let settled = metadata.deletion_timestamp.is_some()
            || object.status.as_ref().is_some_and(|status| {
                status.conditions.as_ref().is_some_and(|conditions| !conditions.is_empty())
                    || status.certificate.as_ref().is_some_and(|certificate| !certificate.0.is_empty())
            });
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            signer_name: spec.signer_name.clone(),
            username: spec.username.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            usages: spec.usages.clone().unwrap_or_default(),
            request: spec.request.0.clone(),
            expiration_seconds: spec.expiration_seconds,
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            settled,
        }
    }
}
