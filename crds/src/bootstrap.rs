//! Bootstrapping of the nodes of a NodePool: the format of the join data, and downloads for an air-gapped site.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the nodes of a pool join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The format that the first boot of the nodes understands.
    #[serde(default)]
    pub format: BootstrapFormat,

    /// The lifetime of a bootstrap token. While nodes of the pool are missing, Keyplane creates a new token at half of
    /// this time. So join data that you read at any time is valid for at least the other half.
    #[serde(rename = "tokenTTL", default = "Bootstrap::default_token_ttl")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('10m') && duration(self) <= duration('720h')")
        .message("spec.bootstrap.tokenTTL must be a duration of hours, minutes and seconds from 10m to 720h, for example 24h"))]
    pub token_ttl: String,

    /// The sources of programs that are not installed on the nodes. Usually all are installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloads: Option<Downloads>,

    /// Additional lines for `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub hosts: Vec<HostEntry>,
}

impl Bootstrap {
    /// kubeadm's default.
    fn default_token_ttl() -> String {
        "24h".to_owned()
    }
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            format: BootstrapFormat::default(),
            token_ttl: Self::default_token_ttl(),
            downloads: None,
            hosts: vec![],
        }
    }
}

/// A format of join data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BootstrapFormat {
    /// A shell script, for nodes that people or a configuration tool set up.
    #[default]
    Script,
    /// User data for cloud-init.
    CloudConfig,
    /// A configuration for Ignition 3.
    Ignition,
}

impl BootstrapFormat {
    /// The value of the field `format` in the Secret with the join data.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Script => "script",
            // The name that Cluster API uses.
            Self::CloudConfig => "cloud-config",
            Self::Ignition => "ignition",
        }
    }
}

/// The sources of programs. A program that is not named must be installed already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Downloads {
    /// The kubelet's binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<Download>,

    /// kubectl's binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubectl: Option<Download>,

    /// The archive of containerd (`containerd-<version>-linux-<arch>.tar.gz`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<Download>,

    /// runc's binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runc: Option<Download>,

    /// The archive of the CNI plugins (`cni-plugins-linux-<arch>-<version>.tgz`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_plugins: Option<Download>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.sha256) || !self.url.contains('{arch}')")
    .message("spec.bootstrap.downloads: a sha256 is that of one file: write the architecture in the url in place of {arch}, or leave sha256 out"))]
pub struct Download {
    /// The URL. `{version}` is replaced by the cluster's Kubernetes version (`v1.37.2`), `{arch}` by the node's
    /// architecture (`amd64`, `arm64`).
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[A-Za-z0-9._~:/?%@&=+,{}-]+$')")
        .message("spec.bootstrap.downloads: url must be a URL such as https://files.corp.example/kubernetes/{version}/{arch}/kubelet"))]
    pub url: String,

    /// The file's SHA-256 in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')")
        .message("spec.bootstrap.downloads: sha256 must be 64 lower-case hexadecimal digits, as sha256sum prints them"))]
    pub sha256: Option<String>,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostEntry {
    /// The IP address.
    #[schemars(length(min = 1, max = 39))]
    #[x_kube(validation = Rule::new("isIP(self)")
        .message("spec.bootstrap.hosts[].address must be an IP address, for example 10.0.0.5"))]
    pub address: String,

    /// The host names of this address.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(n, !format.dns1123Subdomain().validate(n).hasValue())")
        .message("spec.bootstrap.hosts[].names: each must be a lower-case DNS name, for example mirror.corp.example"))]
    pub names: Vec<String>,
}
