//! The fields of a `CertificateSigningRequest` that the rules use.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;

use super::names::is_subdomain;
use super::pkcs10::Pkcs10;

/// The signer of serving certificates of kubelets.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// The signer of client certificates of kubelets.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

const NODE_USER_PREFIX: &str = "system:node:";

/// The prefix of the username of a bootstrap token. The ID of the token follows.
const BOOTSTRAP_USER_PREFIX: &str = "system:bootstrap:";

/// The prefix of the group of bootstrap tokens of a pool. The name of the NodePool follows.
pub const POOL_GROUP_PREFIX: &str = "system:bootstrappers:keyplane:";

/// The signers whose CSRs Keyplane evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signer {
    /// kubernetes.io/kubelet-serving
    KubeletServing,
    /// kubernetes.io/kube-apiserver-client-kubelet
    KubeletClient,
}

impl Signer {
    /// Returns the signer with a name, if Keyplane evaluates its CSRs.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            KUBELET_SERVING_SIGNER => Some(Self::KubeletServing),
            KUBELET_CLIENT_SIGNER => Some(Self::KubeletClient),
            _ => None,
        }
    }

    /// Returns the name of the signer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeletServing => KUBELET_SERVING_SIGNER,
            Self::KubeletClient => KUBELET_CLIENT_SIGNER,
        }
    }
}

/// The author of a CSR, as recorded by the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester<'a> {
    /// A kubelet with its own certificate, with the name of the Node.
    Node(&'a str),
    /// The holder of a bootstrap token: any machine of a pool, or an attacker with a stolen token.
    Token,
}

/// A `CertificateSigningRequest` object. The API server has set or validated all fields except `request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// The name of the object.
    pub name: String,
    /// The UID of the object.
    pub uid: String,
    /// The evaluated version. An approval applies only to this version.
    pub resource_version: String,
    /// The requested signer.
    pub signer_name: String,
    /// The author of the object. The API server sets this from the credentials, so a requester can't choose it.
    pub username: String,
    /// The groups of the author, set by the API server as well.
    pub groups: Vec<String>,
    /// The requested usages.
    pub usages: Vec<String>,
    /// The PKCS #10 request as PEM, unchanged.
    pub request: Vec<u8>,
    /// The requested lifetime.
    pub expiration_seconds: Option<i32>,
    /// The creation time of the object.
    pub created: Option<Timestamp>,
    /// Whether the object is approved, denied, failed, signed or being deleted. Keyplane does not change such an
    /// object.
    pub settled: bool,
    /// Whether the object is approved.
    pub approved: bool,
}

impl SigningRequest {
    /// Returns the requester according to the username alone, because the content of the request proves nothing about
    /// its author. Returns `None` for other users than nodes and bootstrap tokens.
    #[must_use]
    pub fn requester(&self) -> Option<Requester<'_>> {
        if let Some(name) = self.username.strip_prefix(NODE_USER_PREFIX) {
            return is_subdomain(name).then_some(Requester::Node(name));
        }
        let id = self.username.strip_prefix(BOOTSTRAP_USER_PREFIX)?;
        // The form that the authenticator of the API server requires (`bootstrapapi.BootstrapTokenIDPattern`).
        let is_id = id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        is_id.then_some(Requester::Token)
    }

    /// Returns the node name of the requester, if the requester is a node.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        match self.requester() {
            Some(Requester::Node(name)) => Some(name),
            _ => None,
        }
    }

    /// Returns the node that the CSR is about: the requester, or for a bootstrap token the node in the subject. The
    /// holder of a token can write any name, so the rules verify that the node belongs to the pool of the token.
    #[must_use]
    pub fn subject_node(&self) -> Option<String> {
        match self.requester()? {
            Requester::Node(name) => Some(name.to_owned()),
            Requester::Token => node_of_subject(&Pkcs10::skim(&self.request).ok()?).map(ToOwned::to_owned),
        }
    }

    /// Returns the pools of the token, according to the groups of the requester.
    pub fn token_pools(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.strip_prefix(POOL_GROUP_PREFIX))
    }

    /// Returns the signer, if Keyplane evaluates its CSRs.
    #[must_use]
    pub fn signer(&self) -> Option<Signer> {
        Signer::of(&self.signer_name)
    }
}

/// Returns the node name in the subject of a request, if any.
pub fn node_of_subject(pkcs10: &Pkcs10) -> Option<&str> {
    let (_, common_name) = pkcs10.identity()?;
    common_name.strip_prefix(NODE_USER_PREFIX).filter(|name| is_subdomain(name))
}

impl From<&CertificateSigningRequest> for SigningRequest {
    fn from(object: &CertificateSigningRequest) -> Self {
        let (metadata, spec) = (&object.metadata, &object.spec);
        // Any condition counts, as in the signer and the in-tree approver: Approved, Denied, Failed, or one of a later
        // Kubernetes version.
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
            approved: object.status.as_ref().is_some_and(|status| {
                status.conditions.iter().flatten().any(|condition| condition.type_ == "Approved")
            }),
        }
    }
}
