//! The certificate authorities of a cluster.

/// The three authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityName {
    /// Signs for the API server, kubelets and everybody who talks to the API server.
    Cluster,
    /// Signs for etcd and its clients.
    Etcd,
    /// Signs for the API server as a proxy in front of aggregated API servers.
    FrontProxy,
}

impl AuthorityName {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Etcd, Self::FrontProxy];

    /// The name in `kubeadm certs check-expiration` and in a ClusterSpec's status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd-ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    /// The common name of its certificate.
    #[must_use]
    pub const fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "kubernetes",
            Self::Etcd => "etcd-ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    /// What follows the cluster's name in the name of its Secret: the contract of Cluster API.
    #[must_use]
    pub const fn secret_suffix(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd",
            Self::FrontProxy => "proxy",
        }
    }

    /// Its file below kubeadm's `pki` directory, without the ending.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd/ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }
}
