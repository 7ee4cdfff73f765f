//! The names of the certificate authorities of a cluster.

/// One of the three CAs of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaName {
    /// Signs certificates of the API server, the kubelets and the clients of the API server.
    Cluster,
    /// Signs certificates of etcd and its clients.
    Etcd,
    /// Signs the client certificate of the API server as a proxy for aggregated API servers.
    FrontProxy,
}

impl CaName {
    /// All CAs, in the order in which Keyplane creates them.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Etcd, Self::FrontProxy];

    /// Returns the name in `kubeadm certs check-expiration` and in the status of a ClusterSpec.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd-ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    /// Returns the common name of the CA certificate.
    #[must_use]
    pub const fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "kubernetes",
            Self::Etcd => "etcd-ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    /// Returns the suffix of the Secret name after the cluster name, as in the contract of Cluster API.
    #[must_use]
    pub const fn secret_suffix(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd",
            Self::FrontProxy => "proxy",
        }
    }

    /// Returns the path below the `pki` directory of kubeadm, without the extension.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd/ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }
}
