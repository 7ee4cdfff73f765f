//! A Secret that is to be written, before its keys are made: what it will hold, and where each certificate in it comes from.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{KeyAlgorithm, reasons};

use super::{Ask, own_credential, rotation};
use crate::encryption::{State, describe};
use crate::inventory::{Leaf, user_certificate};
use crate::pki::AuthorityName;
use crate::pki::SecretText;
use crate::pki::{Authority, CertificateOrder, renewal};
use crate::rotation::Subject;

/// A Secret that is yet to be issued.
#[derive(Debug)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// What it will hold.
    pub content: Content,
}

/// What a Secret will hold.
#[derive(Debug)]
pub enum Content {
    /// A new authority.
    Authority {
        /// Which one.
        name: AuthorityName,
        /// Its key.
        algorithm: KeyAlgorithm,
        /// From when on it is valid.
        not_before: Timestamp,
        /// Until when.
        not_after: Timestamp,
    },
    /// An authority of the user's own.
    GivenAuthority {
        /// Which one.
        name: AuthorityName,
        /// What was given.
        authority: Box<Authority>,
    },
    /// A new service-account pair.
    ServiceAccountKey {
        /// Its key.
        algorithm: KeyAlgorithm,
    },
    /// The next move of a rotation.
    Rotation {
        /// What is rotated.
        subject: Subject,
        /// What is done.
        step: rotation::Move,
    },
    /// The keys that wait for certificates of signers outside.
    Requests {
        /// Whose they are; nothing for the cluster's own.
        node: Option<String>,
        /// Those that are made.
        asked: Vec<Ask>,
        /// Those that are not needed any more.
        dropped: Vec<String>,
    },
    /// Keyplane's own certificates for a target whose authorities sign outside.
    Own {
        /// The certificates.
        sources: Vec<(&'static own_credential::Own, Source)>,
    },
    /// The keys with which objects are encrypted.
    Encryption {
        /// What is to be remembered of them.
        state: Box<State>,
        /// The reason of the Event about it; nothing where there is no news.
        news: Option<&'static str>,
    },
    /// All that is secret on a node.
    Node {
        /// The node's name.
        node: String,
        /// Its certificates: those that stay, and those that are issued.
        leaves: Vec<PlannedLeaf>,
    },
    /// A client certificate for the kubelet of a worker, for as long as it has none that is good.
    WorkerCredential {
        /// The worker's name.
        node: String,
        /// Where the certificate comes from.
        source: Source,
    },
    /// The cluster's own kubeconfig.
    Kubeconfig {
        /// Its certificate.
        leaf: PlannedLeaf,
    },
    /// A user's kubeconfig.
    User {
        /// The user's name.
        user: String,
        /// Where its certificate comes from.
        source: Source,
    },
}

/// A certificate in a Secret that is to be written.
#[derive(Debug)]
pub struct PlannedLeaf {
    /// Which one.
    pub leaf: &'static Leaf,
    /// Where it comes from.
    pub source: Source,
}

/// Where a certificate that is to be written comes from.
#[derive(Debug)]
pub enum Source {
    /// It stays as it is.
    Keep(Pair),
    /// It is issued.
    Issue {
        /// What it says.
        order: CertificateOrder,
        /// The key that it gets.
        key: KeySource,
        /// Why.
        reason: renewal::Reason,
    },
    /// A signer outside has signed it.
    Take {
        /// The certificate, and the key that has waited for it.
        pair: Pair,
        /// Why it was asked for.
        reason: renewal::Reason,
    },
    /// The kubelet keeps its own, in a file that the kubeconfig refers to.
    KubeletsOwn,
}

/// The key of a certificate that is issued.
#[derive(Debug)]
pub enum KeySource {
    /// A new one.
    New(KeyAlgorithm),
    /// The one that the certificate before had.
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
    /// The reason of the Event about it: `Renewed` where a certificate takes another one's place, else `Issued`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let replaces = |source: &Source| matches!(source, Source::Issue { reason, .. } | Source::Take { reason, .. } if *reason != renewal::Reason::Missing);
        let renewed = match &self.content {
            Content::Authority { .. } | Content::GivenAuthority { .. } | Content::ServiceAccountKey { .. } => false,
            Content::Rotation { step, .. } => return step.reason(),
            Content::Encryption { news, .. } => return news.unwrap_or(reasons::CONTINUED),
            Content::Requests { asked, .. } => {
                return if asked.is_empty() { reasons::REQUEST_SETTLED } else { reasons::REQUESTED };
            }
            Content::Own { sources } => sources.iter().any(|(_, source)| replaces(source)),
            Content::Node { leaves, .. } => leaves.iter().any(|planned| replaces(&planned.source)),
            Content::Kubeconfig { leaf } => replaces(&leaf.source),
            Content::User { source, .. } | Content::WorkerCredential { source, .. } => replaces(source),
        };
        if renewed { reasons::RENEWED } else { reasons::ISSUED }
    }

    /// Whether an Event tells of it: what goes on step by step is told at its beginning and its end.
    #[must_use]
    pub const fn is_news(&self) -> bool {
        !matches!(self.content, Content::Encryption { news: None, .. })
    }

    /// What the step does, for an Event and the log: names and reasons, nothing secret.
    #[must_use]
    pub fn describe(&self) -> String {
        let issued = |sources: &[(&str, &Source)]| {
            let issued: Vec<_> = sources
                .iter()
                .filter_map(|(certificate, source)| match source {
                    Source::Issue { reason, .. } => Some(format!("{certificate} ({})", reason.name())),
                    Source::Take { reason, .. } => Some(format!("{certificate} ({}, signed outside)", reason.name())),
                    Source::Keep(_) | Source::KubeletsOwn => None,
                })
                .collect();
            if issued.is_empty() { "no certificate issued".to_owned() } else { format!("issued {}", issued.join(", ")) }
        };
        match &self.content {
            Content::Authority { name, .. } => format!("made the authority {} in Secret {}", name.name(), self.name),
            Content::GivenAuthority { name, authority } => {
                let (name, given) = (name.name(), authority.name());
                format!("took the authority {name} from Secret {given} over into Secret {}", self.name)
            }
            Content::ServiceAccountKey { .. } => format!("made the service-account key in Secret {}", self.name),
            Content::Rotation { subject, step } => step.describe(*subject, &self.name),
            Content::Encryption { state, .. } => format!("encryption at rest: {}", describe(state)),
            Content::Requests { node, asked, dropped } => {
                let of = node.as_ref().map_or_else(String::new, |node| format!(" for node {node}"));
                let asked: Vec<_> = asked.iter().map(|ask| ask.id.as_str()).collect();
                match asked.as_slice() {
                    [] => format!("forgot keys in Secret {}{of}: {}", self.name, dropped.join(", ")),
                    asked => format!("made keys in Secret {}{of} to ask with: {}", self.name, asked.join(", ")),
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
