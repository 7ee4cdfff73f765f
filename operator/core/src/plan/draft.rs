//! Drafts of Secrets: the content that is planned, and the source of each certificate, before any key is generated.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{KeyAlgorithm, reasons};

use super::{KeyRequest, own_credential, rotation};
use crate::encryption::{State, describe};
use crate::inventory::{Leaf, user_certificate};
use crate::pki::{CaName, CertificateAuthority, CertificateTemplate, SecretText, renewal};
use crate::rotation::Subject;

/// A Secret that is still to be issued.
#[derive(Debug)]
pub struct Draft {
    /// The name of the Secret.
    pub name: String,
    /// The planned content.
    pub content: Content,
}

/// The planned content of a Secret.
#[derive(Debug)]
pub enum Content {
    /// A new CA.
    CertificateAuthority {
        /// The name of the CA.
        name: CaName,
        /// The key algorithm.
        algorithm: KeyAlgorithm,
        /// The start of the validity.
        not_before: Timestamp,
        /// The end of the validity.
        not_after: Timestamp,
    },
    /// A user-provided CA.
    UserProvidedCa {
        /// The name of the CA.
        name: CaName,
        /// The CA from the user's Secret.
        ca: Box<CertificateAuthority>,
    },
    /// A new service-account key pair.
    ServiceAccountKey {
        /// The key algorithm.
        algorithm: KeyAlgorithm,
    },
    /// The next step of a rotation.
    Rotation {
        /// The CA or key that is rotated.
        subject: Subject,
        /// The step.
        step: rotation::RotationStep,
    },
    /// The private keys that wait for certificates of an external signer.
    Requests {
        /// The node that the keys belong to; `None` for the keys of the cluster.
        node: Option<String>,
        /// The keys to generate, each with its CSR.
        new_keys: Vec<KeyRequest>,
        /// The ids of the keys that are no longer needed.
        dropped: Vec<String>,
    },
    /// Keyplane's client certificates for a target cluster with external CAs.
    Own {
        /// The certificates.
        sources: Vec<(&'static own_credential::OperatorCredential, Source)>,
    },
    /// The keys for encryption at rest.
    Encryption {
        /// The state that is stored beside the keys.
        state: Box<State>,
        /// The reason of the Event; `None` if the step emits no Event.
        event_reason: Option<&'static str>,
    },
    /// The secret files of a node.
    Node {
        /// The node's name.
        node: String,
        /// The certificates, both kept and issued.
        leaves: Vec<PlannedLeaf>,
    },
    /// A client certificate for the kubelet of a worker that has no valid certificate.
    WorkerCredential {
        /// The worker's name.
        node: String,
        /// The source of the certificate.
        source: Source,
    },
    /// The kubeconfig of the cluster administrator.
    Kubeconfig {
        /// The certificate.
        leaf: PlannedLeaf,
    },
    /// A user's kubeconfig.
    User {
        /// The user's name.
        user: String,
        /// The source of the certificate.
        source: Source,
    },
}

/// A certificate in a planned Secret.
#[derive(Debug)]
pub struct PlannedLeaf {
    /// The inventory entry of the certificate.
    pub leaf: &'static Leaf,
    /// The source of the certificate.
    pub source: Source,
}

/// The source of a planned certificate.
#[derive(Debug)]
pub enum Source {
    /// The stored certificate is kept.
    Keep(Pair),
    /// A certificate is issued.
    Issue {
        /// The certificate template.
        order: CertificateTemplate,
        /// The source of the private key.
        key: KeySource,
        /// The reason for issuing.
        reason: renewal::Reason,
    },
    /// The external signer has signed the certificate.
    Signed {
        /// The signed certificate and its private key.
        pair: Pair,
        /// The reason for the request.
        reason: renewal::Reason,
    },
    /// The kubelet manages its certificate in a file that the kubeconfig refers to.
    KubeletManaged,
}

/// The source of the key of an issued certificate.
#[derive(Debug)]
pub enum KeySource {
    /// A new key of this algorithm.
    New(KeyAlgorithm),
    /// The key of the previous certificate.
    Keep(SecretText),
}

/// A certificate and its key as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: SecretText,
}

impl Draft {
    /// Returns the reason of the Event: `Renewed` if a certificate replaces another one, else `Issued`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let replaces = |source: &Source| match source {
            Source::Issue { reason, .. } | Source::Signed { reason, .. } => *reason != renewal::Reason::Missing,
            Source::Keep(_) | Source::KubeletManaged => false,
        };
        let renewed = match &self.content {
            Content::CertificateAuthority { .. }
            | Content::UserProvidedCa { .. }
            | Content::ServiceAccountKey { .. } => false,
            Content::Rotation { step, .. } => return step.reason(),
            Content::Encryption { event_reason, .. } => return event_reason.unwrap_or(reasons::CONTINUED),
            Content::Requests { new_keys, .. } => {
                return if new_keys.is_empty() { reasons::REQUEST_SETTLED } else { reasons::REQUESTED };
            }
            Content::Own { sources } => sources.iter().any(|(_, source)| replaces(source)),
            Content::Node { leaves, .. } => leaves.iter().any(|planned| replaces(&planned.source)),
            Content::Kubeconfig { leaf } => replaces(&leaf.source),
            Content::User { source, .. } | Content::WorkerCredential { source, .. } => replaces(source),
        };
        if renewed { reasons::RENEWED } else { reasons::ISSUED }
    }

    /// Returns whether the step emits an Event. Work in many small steps emits Events only at its start and its end.
    #[must_use]
    pub const fn emits_event(&self) -> bool {
        !matches!(self.content, Content::Encryption { event_reason: None, .. })
    }

    /// Returns the message for the Event and the log. The message contains names and reasons, and nothing secret.
    #[must_use]
    pub fn describe(&self) -> String {
        let issued = |sources: &[(&str, &Source)]| {
            let issued: Vec<_> = sources
                .iter()
                .filter_map(|(certificate, source)| match source {
                    Source::Issue { reason, .. } => Some(format!("{certificate} ({})", reason.name())),
                    Source::Signed { reason, .. } => {
                        Some(format!("{certificate} ({}, signed by the external CA)", reason.name()))
                    }
                    Source::Keep(_) | Source::KubeletManaged => None,
                })
                .collect();
            if issued.is_empty() { "no certificate issued".to_owned() } else { format!("issued {}", issued.join(", ")) }
        };
        match &self.content {
            Content::CertificateAuthority { name, .. } => {
                format!("generated CA {} in Secret {}", name.name(), self.name)
            }
            Content::UserProvidedCa { name, ca } => {
                let (name, user_provided) = (name.name(), ca.name());
                format!("copied the user-provided CA {name} from Secret {user_provided} into Secret {}", self.name)
            }
            Content::ServiceAccountKey { .. } => format!("generated the service-account key in Secret {}", self.name),
            Content::Rotation { subject, step } => step.describe(*subject, &self.name),
            Content::Encryption { state, .. } => format!("encryption at rest: {}", describe(state)),
            Content::Requests { node, new_keys, dropped } => {
                let of = node.as_ref().map_or_else(String::new, |node| format!(" for node {node}"));
                let new_keys: Vec<_> = new_keys.iter().map(|key| key.id.as_str()).collect();
                match new_keys.as_slice() {
                    [] => format!(
                        "removed keys from Secret {}{of} that need no certificate any more: {}",
                        self.name,
                        dropped.join(", ")
                    ),
                    new_keys => format!("generated keys and CSRs in Secret {}{of}: {}", self.name, new_keys.join(", ")),
                }
            }
            Content::Own { sources } => {
                let sources: Vec<_> = sources.iter().map(|(own, source)| (own.id, source)).collect();
                format!("wrote Secret {}: {}", self.name, issued(&sources))
            }
            Content::Node { node, leaves } => {
                let sources: Vec<_> = leaves.iter().map(|planned| (planned.leaf.name, &planned.source)).collect();
                format!("wrote Secret {} for node {node}: {}", self.name, issued(&sources))
            }
            Content::WorkerCredential { node, source } => {
                format!("wrote Secret {} for the kubelet of {node}: {}", self.name, issued(&[("kubelet.conf", source)]))
            }
            Content::Kubeconfig { leaf } => {
                format!("wrote Secret {}: {}", self.name, issued(&[(leaf.leaf.name, &leaf.source)]))
            }
            Content::User { user, source } => {
                format!("wrote Secret {}: {}", self.name, issued(&[(&user_certificate(user), source)]))
            }
        }
    }
}
