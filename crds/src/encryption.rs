//! What of a target is stored encrypted, and with what.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Encryption of objects in the target's etcd. An empty object encrypts Secrets. Whatever changes here is done step by step
/// under the running cluster: keys are made known to every API server before one of them writes with them, and objects that
/// are there are written anew. Taken away, everything is decrypted the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.provider != 'aesgcm' || has(self.rotationPeriod)")
    .message("spec.encryptionAtRest.provider: a key of aesgcm is good for 200,000 writes: write a rotationPeriod in which the cluster makes fewer, for example 168h, or take secretbox"))]
pub struct EncryptionAtRest {
    /// How objects are encrypted. Another one means a new key, as in a rotation.
    #[serde(default)]
    pub provider: EncryptionProvider,

    /// What is encrypted: resources as the API names them, with their group where they have one, for example `secrets` or
    /// `widgets.example.com`.
    #[serde(default = "EncryptionAtRest::default_resources")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(r, r.matches('^[a-z][a-z0-9-]*([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$'))")
        .message("spec.encryptionAtRest.resources: write each resource by its name in lower case, with its group where it has one, for example secrets or widgets.example.com; there are no wildcards"))]
    #[x_kube(validation = Rule::new("self.all(r, !r.endsWith('.events.k8s.io') && !r.endsWith('.extensions') && !(r in ['apiserveripinfo', 'serviceipallocations', 'servicenodeportallocations']))")
        .message("spec.encryptionAtRest.resources: the API servers refuse the groups events.k8s.io (its objects are stored as events) and extensions, and what has no API of its own"))]
    pub resources: Vec<String>,

    /// How old a key becomes before it is rotated by itself, at least a day. Not set means only on request. It begins in the
    /// CertificatePolicy's maintenance window, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('24h') && duration(self) <= duration('87600h')")
        .message("spec.encryptionAtRest.rotationPeriod must be a duration of hours, minutes and seconds from 24h to 87600h, for example 720h"))]
    pub rotation_period: Option<String>,

    /// For how long a key is kept after a rotation. Backups of etcd from before can't be read without it.
    #[serde(default = "EncryptionAtRest::default_keep_retired_keys")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('0s') && duration(self) <= duration('87600h')")
        .message("spec.encryptionAtRest.keepRetiredKeys must be a duration of hours, minutes and seconds of at most 87600h, for example 8760h"))]
    pub keep_retired_keys: String,
}

impl EncryptionAtRest {
    /// What Kubernetes' documentation and the CIS Kubernetes Benchmark ask for.
    fn default_resources() -> Vec<String> {
        vec!["secrets".to_owned()]
    }

    /// A year.
    fn default_keep_retired_keys() -> String {
        "8760h".to_owned()
    }
}

impl Default for EncryptionAtRest {
    fn default() -> Self {
        Self {
            provider: EncryptionProvider::default(),
            resources: Self::default_resources(),
            rotation_period: None,
            keep_retired_keys: Self::default_keep_retired_keys(),
        }
    }
}

/// How objects are encrypted. The API servers know KMS plugins too: such a plugin runs on each machine and is its owner's
/// affair, as are the flags for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncryptionProvider {
    /// AES in CBC mode. Kubernetes' documentation advises against it: a padding oracle may be found in it.
    Aescbc,
    /// AES in GCM mode: fast, and good for 200,000 writes with one key.
    Aesgcm,
    /// `XSalsa20` and Poly1305.
    #[default]
    Secretbox,
}

impl EncryptionProvider {
    /// Its name in an `EncryptionConfiguration`, and in what is stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aescbc => "aescbc",
            Self::Aesgcm => "aesgcm",
            Self::Secretbox => "secretbox",
        }
    }
}
