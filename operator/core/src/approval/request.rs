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

/// What the username of a bootstrap token begins with; the token's ID follows.
const BOOTSTRAP_USER_PREFIX: &str = "system:bootstrap:";

/// What the group of a pool's bootstrap tokens begins with; the NodePool's name follows.
pub const POOL_GROUP_PREFIX: &str = "system:bootstrappers:keyplane:";

/// The signers whose requests are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signer {
    /// kubernetes.io/kubelet-serving
    KubeletServing,
    /// kubernetes.io/kube-apiserver-client-kubelet
    KubeletClient,
}

impl Signer {
    /// The signer of that name, if its requests are judged.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            KUBELET_SERVING_SIGNER => Some(Self::KubeletServing),
            KUBELET_CLIENT_SIGNER => Some(Self::KubeletClient),
            _ => None,
        }
    }

    /// The signer's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeletServing => KUBELET_SERVING_SIGNER,
            Self::KubeletClient => KUBELET_CLIENT_SIGNER,
        }
    }
}

/// Who made a request, by what the API server says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester<'a> {
    /// A kubelet with a certificate of its own; the Node's name.
    Node(&'a str),
    /// Somebody with a bootstrap token: any machine of a pool, or who has stolen the token.
    Token,
}

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
    /// Whether it is approved.
    pub approved: bool,
}

impl SigningRequest {
    /// Who asks, from the username alone: nothing in the request itself is believed about who wrote it. `None` if it is
    /// neither a node nor a bootstrap token.
    #[must_use]
    pub fn requester(&self) -> Option<Requester<'_>> {
        if let Some(name) = self.username.strip_prefix(NODE_USER_PREFIX) {
            return is_subdomain(name).then_some(Requester::Node(name));
        }
        let id = self.username.strip_prefix(BOOTSTRAP_USER_PREFIX)?;
        // The form that the API server's authenticator asks for (`bootstrapapi.BootstrapTokenIDPattern`).
        let is_id = id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        is_id.then_some(Requester::Token)
    }

    /// The name of the node that asks, if a node asks.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        match self.requester() {
            Some(Requester::Node(name)) => Some(name),
            _ => None,
        }
    }

    /// The name of the node that the request is about: of the one that asks, or, for a bootstrap token, of the one that
    /// the subject names. Who holds a token may name any: the rules see to it that it is one of the token's pool.
    #[must_use]
    pub fn subject_node(&self) -> Option<String> {
        match self.requester()? {
            Requester::Node(name) => Some(name.to_owned()),
            Requester::Token => node_of_subject(&Pkcs10::skim(&self.request).ok()?).map(ToOwned::to_owned),
        }
    }

    /// The pools whose tokens have the groups of the requester.
    pub fn token_pools(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.strip_prefix(POOL_GROUP_PREFIX))
    }

    /// The signer, if its requests are judged.
    #[must_use]
    pub fn signer(&self) -> Option<Signer> {
        Signer::of(&self.signer_name)
    }
}

/// The node that a request's subject names, if it names one.
pub fn node_of_subject(pkcs10: &Pkcs10) -> Option<&str> {
    let (_, common_name) = pkcs10.identity()?;
    common_name.strip_prefix(NODE_USER_PREFIX).filter(|name| is_subdomain(name))
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
            approved: object.status.as_ref().is_some_and(|status| {
                status.conditions.iter().flatten().any(|condition| condition.type_ == "Approved")
            }),
        }
    }
}
