//! Encryption at rest: the encrypted resources of a target cluster, and the provider.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Encryption of objects in the target cluster's etcd. An empty object encrypts Secrets. Keyplane applies each change
/// step by step while the cluster runs. It distributes a new key to every API server before one of them writes with it.
/// Then it re-encrypts the stored objects. If you remove this field, Keyplane decrypts everything in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.provider != 'aesgcm' || has(self.rotationPeriod)")
    .message("spec.encryptionAtRest.provider: a key of aesgcm is safe for 200,000 writes: set a rotationPeriod in which the cluster writes less, for example 168h, or use secretbox"))]
pub struct EncryptionAtRest {
    /// The encryption provider. A change rotates the key.
    #[serde(default)]
    pub provider: EncryptionProvider,

    /// The encrypted resources, by their API names and with their group if there is one, for example `secrets` or
    /// `widgets.example.com`.
    #[serde(default = "EncryptionAtRest::default_resources")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(r, r.matches('^[a-z][a-z0-9-]*([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$'))")
        .message("spec.encryptionAtRest.resources: write each resource by its name in lower case, with its group if there is one, for example secrets or widgets.example.com; there are no wildcards"))]
    #[x_kube(validation = Rule::new("self.all(r, !r.endsWith('.events.k8s.io') && !r.endsWith('.extensions') && !(r in ['apiserveripinfo', 'serviceipallocations', 'servicenodeportallocations']))")
        .message("spec.encryptionAtRest.resources: the API servers refuse the groups events.k8s.io (its objects are stored as events) and extensions, and resources without an API"))]
    pub resources: Vec<String>,

    /// The age at which a key is rotated automatically, at least a day. Not set means only on request. The rotation
    /// starts in the CertificatePolicy's maintenance window, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('24h') && duration(self) <= duration('87600h')")
        .message("spec.encryptionAtRest.rotationPeriod must be a duration of hours, minutes and seconds from 24h to 87600h, for example 720h"))]
    pub rotation_period: Option<String>,

    /// How long a former key is kept after a rotation. Older backups of etcd can't be read without it.
    #[serde(default = "EncryptionAtRest::default_keep_retired_keys")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('0s') && duration(self) <= duration('87600h')")
        .message("spec.encryptionAtRest.keepRetiredKeys must be a duration of hours, minutes and seconds of at most 87600h, for example 8760h"))]
    pub keep_retired_keys: String,
}

impl EncryptionAtRest {
    /// The minimum in Kubernetes' documentation and in the CIS Kubernetes Benchmark.
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

/// The encryption provider. The API servers also support KMS plugins. You run such a plugin on each node yourself, and
/// set its flags yourself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncryptionProvider {
    /// AES in CBC mode. Kubernetes' documentation advises against it, because it is vulnerable to padding oracle
    /// attacks.
    Aescbc,
    /// AES in GCM mode: fast, and safe for 200,000 writes with one key.
    Aesgcm,
    /// `XSalsa20` and Poly1305.
    #[default]
    Secretbox,
}

impl EncryptionProvider {
    /// The provider's name in an `EncryptionConfiguration`, and in the prefix of stored objects.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aescbc => "aescbc",
            Self::Aesgcm => "aesgcm",
            Self::Secretbox => "secretbox",
        }
    }
}
