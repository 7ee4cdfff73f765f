//! How machines of a NodePool join: the format of their join data, and what an air-gapped site needs in it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How machines of a pool join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// What the machines' first boot understands.
    #[serde(default)]
    pub format: BootstrapFormat,

    /// How long a bootstrap token lives. While machines of the pool are missing, a new one is made when half of this is
    /// over, so join data that is read at any time is good for at least the other half.
    #[serde(rename = "tokenTTL", default = "Bootstrap::default_token_ttl")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('10m') && duration(self) <= duration('720h')")
        .message("spec.bootstrap.tokenTTL must be a duration of hours, minutes and seconds from 10m to 720h, for example 24h"))]
    pub token_ttl: String,

    /// Where the machines get programs from, if they are not installed: usually they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloads: Option<Downloads>,

    /// More lines for `/etc/hosts`.
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
    /// A shell script, for machines that are set up by hand or by a tool that runs commands.
    #[default]
    Script,
    /// User data for cloud-init.
    CloudConfig,
    /// A configuration for Ignition 3.
    Ignition,
}

impl BootstrapFormat {
    /// Its name in the field `format` of the join data's Secret.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Script => "script",
            // Cluster API's name for it.
            Self::CloudConfig => "cloud-config",
            Self::Ignition => "ignition",
        }
    }
}

/// Where programs are had from. What is not named is expected to be installed.
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
    /// Its URL. `{version}` stands for the cluster's Kubernetes version (`v1.37.2`), `{arch}` for the machine's
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
    /// The address.
    #[schemars(length(min = 1, max = 39))]
    #[x_kube(validation = Rule::new("isIP(self)")
        .message("spec.bootstrap.hosts[].address must be an IP address, for example 10.0.0.5"))]
    pub address: String,

    /// The names that have it.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(n, !format.dns1123Subdomain().validate(n).hasValue())")
        .message("spec.bootstrap.hosts[].names: each must be a lower-case DNS name, for example mirror.corp.example"))]
    pub names: Vec<String>,
}
