//! The table of all leaf certificates that `kubeadm init` creates: their CA, content and location.
//!
//! Certificate names, subjects, subject alternative names and usages are those of kubeadm 1.37
//! (`phases/certs/certlist.go`, `phases/kubeconfig/kubeconfig.go`, `util/pkiutil/pki_helpers.go`).

use std::collections::BTreeSet;

use keyplane_crds::Layout;

use super::pki::{AlternativeName, ExtendedUsage, Subject};
use crate::model::{Cluster, Endpoint, Host, Node, User};
use crate::pki::CaName;

/// The storage form of a certificate and its key on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `<file>.crt` and `<file>.key`, at the [paths](crate::pki::places::pki_file) of the layout.
    Pair {
        /// The file name without the extension.
        file: &'static str,
    },
    /// Embedded in a kubeconfig, at the [path](crate::pki::places::kubeconfig) of the layout.
    Kubeconfig {
        /// The file name.
        file: &'static str,
        /// The API server in the kubeconfig.
        server: Server,
    },
}

/// The API server in a kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The control-plane endpoint.
    Shared,
    /// The API server on the same node, if any, so that components next to an API server don't depend on a load
    /// balancer.
    Local,
}

/// The location of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Each control-plane node has its own certificate.
    EveryNode,
    /// Only the first control-plane node, as after `kubeadm init`.
    FirstNode,
    /// Each node whose kubelet gets the first certificate from Keyplane. A worker node of the kubeadm layout uses a
    /// bootstrap token instead.
    EveryKubelet,
    /// Each node with a kubelet, if kube-proxy is a systemd unit and not a `DaemonSet`.
    EveryKubeProxy,
    /// The Secret `<cluster>-kubeconfig`, on no node.
    Cluster,
}

/// A leaf certificate.
#[derive(Debug)]
pub struct Leaf {
    /// The name in `kubeadm certs check-expiration` and in the status of a ClusterSpec.
    pub name: &'static str,
    /// The CA.
    pub issuer: CaName,
    /// The extended key usages.
    pub usages: &'static [ExtendedUsage],
    /// The storage form.
    pub form: Form,
    /// The location.
    pub place: Place,
    subject: LeafSubject,
    names: Names,
}

#[derive(Debug)]
enum LeafSubject {
    /// A fixed user without a group.
    User(&'static str),
    /// A fixed user with a group.
    Member(&'static str, &'static str),
    /// The name of the node.
    Node,
    /// The kubelet of the node.
    Kubelet,
}

/// The subject alternative names.
#[derive(Debug)]
enum Names {
    None,
    ApiServer,
    EtcdServer,
    EtcdPeer,
}

const CLIENT: &[ExtendedUsage] = &[ExtendedUsage::ClientAuth];
const SERVER: &[ExtendedUsage] = &[ExtendedUsage::ServerAuth];
/// etcd also uses its server certificate as a client certificate to connect to itself (etcd issue 9785).
const BOTH: &[ExtendedUsage] = &[ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth];

const fn pair(
    name: &'static str,
    issuer: CaName,
    file: &'static str,
    usages: &'static [ExtendedUsage],
    subject: LeafSubject,
    names: Names,
) -> Leaf {
    Leaf { name, issuer, usages, form: Form::Pair { file }, place: Place::EveryNode, subject, names }
}

const fn kubeconfig(name: &'static str, server: Server, place: Place, subject: LeafSubject) -> Leaf {
    let form = Form::Kubeconfig { file: name, server };
    Leaf { name, issuer: CaName::Cluster, usages: CLIENT, form, place, subject, names: Names::None }
}

/// All leaf certificates.
#[rustfmt::skip]
pub const LEAVES: &[Leaf] = &[
    pair("apiserver", CaName::Cluster, "apiserver", SERVER, LeafSubject::User("kube-apiserver"), Names::ApiServer),
    pair("apiserver-kubelet-client", CaName::Cluster, "apiserver-kubelet-client", CLIENT, LeafSubject::User("kube-apiserver-kubelet-client"), Names::None),
    pair("apiserver-etcd-client", CaName::Etcd, "apiserver-etcd-client", CLIENT, LeafSubject::User("kube-apiserver-etcd-client"), Names::None),
    pair("front-proxy-client", CaName::FrontProxy, "front-proxy-client", CLIENT, LeafSubject::User("front-proxy-client"), Names::None),
    pair("etcd-server", CaName::Etcd, "etcd/server", BOTH, LeafSubject::Node, Names::EtcdServer),
    pair("etcd-peer", CaName::Etcd, "etcd/peer", BOTH, LeafSubject::Node, Names::EtcdPeer),
    pair("etcd-healthcheck-client", CaName::Etcd, "etcd/healthcheck-client", CLIENT, LeafSubject::User("kube-etcd-healthcheck-client"), Names::None),
    kubeconfig("admin.conf", Server::Shared, Place::EveryNode, LeafSubject::Member("kubernetes-admin", "kubeadm:cluster-admins")),
    kubeconfig("super-admin.conf", Server::Shared, Place::FirstNode, LeafSubject::Member("kubernetes-super-admin", "system:masters")),
    kubeconfig("controller-manager.conf", Server::Local, Place::EveryNode, LeafSubject::User("system:kube-controller-manager")),
    kubeconfig("scheduler.conf", Server::Local, Place::EveryNode, LeafSubject::User("system:kube-scheduler")),
    kubeconfig("kubelet.conf", Server::Local, Place::EveryKubelet, LeafSubject::Kubelet),
    kubeconfig("kube-proxy.conf", Server::Local, Place::EveryKubeProxy, LeafSubject::User("system:kube-proxy")),
    kubeconfig("kubeconfig", Server::Shared, Place::Cluster, LeafSubject::Member("kubernetes-admin", "kubeadm:cluster-admins")),
];

/// Returns the leaf certificates on a node.
pub fn leaves_of<'a>(cluster: &'a Cluster, node: &'a Node) -> impl Iterator<Item = &'static Leaf> + 'a {
    let external = cluster.external_etcd().is_some();
    let issued = move |leaf: &&'static Leaf| !external || leaf.issuer != CaName::Etcd;
    LEAVES.iter().filter(issued).filter(|leaf| match leaf.place {
        Place::EveryNode => cluster.is_control_plane(node),
        Place::FirstNode => cluster.is_first(node),
        Place::EveryKubelet => cluster.has_kubelet(node),
        Place::EveryKubeProxy => {
            cluster.layout() == Layout::Systemd && cluster.has_kubelet(node) && cluster.spec.addons.kube_proxy.enabled
        }
        Place::Cluster => false,
    })
}

/// Returns the leaf certificate in the Secret `<cluster>-kubeconfig`.
pub fn cluster_leaves() -> impl Iterator<Item = &'static Leaf> {
    LEAVES.iter().filter(|leaf| leaf.place == Place::Cluster)
}

/// The CA that signs user certificates.
pub const USER_ISSUER: CaName = CaName::Cluster;

/// The extended key usages of user certificates.
pub const USER_USAGES: &[ExtendedUsage] = CLIENT;

/// Returns the name of a user certificate in the status of a ClusterSpec. No name in the table has a slash.
#[must_use]
pub fn user_certificate(user: &str) -> String {
    format!("users/{user}")
}

/// Returns the subject of a user certificate: the user, and an organization for each group.
#[must_use]
pub fn user_subject(user: &User) -> Subject {
    Subject { common_name: user.name.clone(), organizations: user.groups.clone() }
}

impl Leaf {
    /// Returns the subject on a node. The subject of [`Place::Cluster`] does not depend on the node.
    #[must_use]
    pub fn subject(&self, node: &Node) -> Subject {
        let (common_name, organization) = match self.subject {
            LeafSubject::User(user) => (user.to_owned(), None),
            LeafSubject::Member(user, group) => (user.to_owned(), Some(group)),
            LeafSubject::Node => (node.name.clone(), None),
            LeafSubject::Kubelet => (format!("system:node:{}", node.name), Some("system:nodes")),
        };
        Subject { common_name, organizations: organization.map(str::to_owned).into_iter().collect() }
    }

    /// Returns the subject alternative names on a node without duplicates, in the order of kubeadm: DNS names sorted,
    /// then IP addresses.
    #[must_use]
    pub fn alternative_names(&self, cluster: &Cluster, node: &Node) -> Vec<AlternativeName> {
        let mut names = match self.names {
            Names::None => vec![],
            Names::ApiServer => api_server_names(cluster, node),
            Names::EtcdServer | Names::EtcdPeer => etcd_names(node),
        };
        let stacked = &cluster.spec.etcd.stacked;
        let more = match self.names {
            Names::None => &[][..],
            Names::ApiServer => &cluster.spec.control_plane.api_server.cert_sans,
            Names::EtcdServer => &stacked.server_cert_sans,
            Names::EtcdPeer => &stacked.peer_cert_sans,
        };
        names.extend(more.iter().map(|text| AlternativeName::parse(text)));
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let (mut dns, addresses): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| matches!(name, AlternativeName::Dns(_)));
        dns.sort();
        dns.extend(addresses);
        dns
    }

    /// Returns the API server of a kubeconfig on a node, or `None` for a pair.
    #[must_use]
    pub fn server(&self, cluster: &Cluster, node: &Node) -> Option<Endpoint> {
        match self.form {
            Form::Pair { .. } => None,
            Form::Kubeconfig { server: Server::Local, .. } if cluster.is_control_plane(node) => {
                Some(node.local_endpoint())
            }
            Form::Kubeconfig { .. } => Some(cluster.endpoint.clone()),
        }
    }
}

fn api_server_names(cluster: &Cluster, node: &Node) -> Vec<AlternativeName> {
    let service = format!("kubernetes.default.svc.{}", cluster.spec.network.dns_domain);
    let dns = [node.name.as_str(), "kubernetes", "kubernetes.default", "kubernetes.default.svc", &service];
    let mut names: Vec<_> = dns.into_iter().map(|name| AlternativeName::Dns(name.to_owned())).collect();
    names.extend(cluster.api_server_service_address().map(AlternativeName::Ip));
    names.push(AlternativeName::Ip(node.advertise_address));
    names.push(match &cluster.endpoint.host {
        Host::Address(address) => AlternativeName::Ip(*address),
        Host::Name(name) => AlternativeName::Dns(name.clone()),
    });
    names
}

fn etcd_names(node: &Node) -> Vec<AlternativeName> {
    vec![
        AlternativeName::Dns(node.name.clone()),
        AlternativeName::Dns("localhost".to_owned()),
        AlternativeName::Ip(node.advertise_address),
        AlternativeName::Ip([127, 0, 0, 1].into()),
        AlternativeName::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
    ]
}
