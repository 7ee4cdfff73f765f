//! The whole PKI as one table: what `kubeadm init` makes, who signs it, what it says, and where it lies.
//!
//! Names, subjects, names in certificates and usages are those of kubeadm 1.37 (`phases/certs/certlist.go`,
//! `phases/kubeconfig/kubeconfig.go`, `util/pkiutil/pki_helpers.go`).

use std::collections::BTreeSet;

use keyplane_crds::Layout;

use super::pki::{AlternativeName, ExtendedUsage, Subject};
use crate::model::{Cluster, Endpoint, Host, Node, User};
use crate::pki::AuthorityName;

/// In what form a certificate and its key lie on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `<file>.crt` and `<file>.key`, at the [places](super::places::pki_file) of the cluster's layout.
    Pair {
        /// The file, without the ending.
        file: &'static str,
    },
    /// Embedded in a kubeconfig, at the [place](super::places::kubeconfig) of the cluster's layout.
    Kubeconfig {
        /// The file.
        file: &'static str,
        /// The API server that it names.
        server: Server,
    },
}

/// Which API server a kubeconfig names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The endpoint that all share.
    Shared,
    /// The one on the same machine, if there is one: what runs beside an API server should not depend on a load
    /// balancer.
    Local,
}

/// Where a certificate belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Every control-plane node has its own.
    EveryNode,
    /// The first control-plane node only, as after `kubeadm init`.
    FirstNode,
    /// Every machine that has a kubelet, with its first certificate from here. A worker of kubeadm's layout has its from
    /// a bootstrap token.
    EveryKubelet,
    /// Every machine that has a kubelet, where kube-proxy is a unit and not a `DaemonSet`.
    EveryProxy,
    /// No machine: the Secret `<cluster>-kubeconfig`.
    Cluster,
}

/// A certificate below an authority.
#[derive(Debug)]
pub struct Leaf {
    /// The name in `kubeadm certs check-expiration` and in a ClusterSpec's status.
    pub name: &'static str,
    /// Who signs it.
    pub issuer: AuthorityName,
    /// What it is for.
    pub usages: &'static [ExtendedUsage],
    /// How it lies on a machine.
    pub form: Form,
    /// Which machines have it.
    pub place: Place,
    subject: Holder,
    names: Names,
}

/// Whose certificate it is.
#[derive(Debug)]
enum Holder {
    /// A fixed user.
    User(&'static str),
    /// A fixed user of a group.
    Member(&'static str, &'static str),
    /// The machine, by its name.
    Machine,
    /// The machine's kubelet.
    Kubelet,
}

/// Which names a certificate has.
#[derive(Debug)]
enum Names {
    None,
    ApiServer,
    EtcdServer,
    EtcdPeer,
}

const CLIENT: &[ExtendedUsage] = &[ExtendedUsage::ClientAuth];
const SERVER: &[ExtendedUsage] = &[ExtendedUsage::ServerAuth];
/// etcd's server certificate is a client's too: etcd dials itself with it (etcd issue 9785).
const BOTH: &[ExtendedUsage] = &[ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth];

const fn pair(
    name: &'static str,
    issuer: AuthorityName,
    file: &'static str,
    usages: &'static [ExtendedUsage],
    subject: Holder,
    names: Names,
) -> Leaf {
    Leaf { name, issuer, usages, form: Form::Pair { file }, place: Place::EveryNode, subject, names }
}

const fn kubeconfig(name: &'static str, server: Server, place: Place, subject: Holder) -> Leaf {
    let form = Form::Kubeconfig { file: name, server };
    Leaf { name, issuer: AuthorityName::Cluster, usages: CLIENT, form, place, subject, names: Names::None }
}

/// Every certificate below an authority.
#[rustfmt::skip]
pub const LEAVES: &[Leaf] = &[
    pair("apiserver", AuthorityName::Cluster, "apiserver", SERVER, Holder::User("kube-apiserver"), Names::ApiServer),
    pair("apiserver-kubelet-client", AuthorityName::Cluster, "apiserver-kubelet-client", CLIENT, Holder::User("kube-apiserver-kubelet-client"), Names::None),
    pair("apiserver-etcd-client", AuthorityName::Etcd, "apiserver-etcd-client", CLIENT, Holder::User("kube-apiserver-etcd-client"), Names::None),
    pair("front-proxy-client", AuthorityName::FrontProxy, "front-proxy-client", CLIENT, Holder::User("front-proxy-client"), Names::None),
    pair("etcd-server", AuthorityName::Etcd, "etcd/server", BOTH, Holder::Machine, Names::EtcdServer),
    pair("etcd-peer", AuthorityName::Etcd, "etcd/peer", BOTH, Holder::Machine, Names::EtcdPeer),
    pair("etcd-healthcheck-client", AuthorityName::Etcd, "etcd/healthcheck-client", CLIENT, Holder::User("kube-etcd-healthcheck-client"), Names::None),
    kubeconfig("admin.conf", Server::Shared, Place::EveryNode, Holder::Member("kubernetes-admin", "kubeadm:cluster-admins")),
    kubeconfig("super-admin.conf", Server::Shared, Place::FirstNode, Holder::Member("kubernetes-super-admin", "system:masters")),
    kubeconfig("controller-manager.conf", Server::Local, Place::EveryNode, Holder::User("system:kube-controller-manager")),
    kubeconfig("scheduler.conf", Server::Local, Place::EveryNode, Holder::User("system:kube-scheduler")),
    kubeconfig("kubelet.conf", Server::Local, Place::EveryKubelet, Holder::Kubelet),
    kubeconfig("kube-proxy.conf", Server::Local, Place::EveryProxy, Holder::User("system:kube-proxy")),
    kubeconfig("kubeconfig", Server::Shared, Place::Cluster, Holder::Member("kubernetes-admin", "kubeadm:cluster-admins")),
];

/// The certificates that lie on a machine.
pub fn leaves_of<'a>(cluster: &'a Cluster, node: &'a Node) -> impl Iterator<Item = &'static Leaf> + 'a {
    let external = cluster.external_etcd().is_some();
    let issued = move |leaf: &&'static Leaf| !external || leaf.issuer != AuthorityName::Etcd;
    LEAVES.iter().filter(issued).filter(|leaf| match leaf.place {
        Place::EveryNode => cluster.is_control_plane(node),
        Place::FirstNode => cluster.is_first(node),
        Place::EveryKubelet => cluster.has_kubelet(node),
        Place::EveryProxy => {
            cluster.layout() == Layout::Systemd && cluster.has_kubelet(node) && cluster.spec.addons.kube_proxy.enabled
        }
        Place::Cluster => false,
    })
}

/// The certificate in the Secret `<cluster>-kubeconfig`.
pub fn cluster_leaves() -> impl Iterator<Item = &'static Leaf> {
    LEAVES.iter().filter(|leaf| leaf.place == Place::Cluster)
}

/// Who signs the certificates of users.
pub const USER_ISSUER: AuthorityName = AuthorityName::Cluster;

/// What a user's certificate is for.
pub const USER_USAGES: &[ExtendedUsage] = CLIENT;

/// The name of a user's certificate in a ClusterSpec's status: no certificate of the table has a slash.
#[must_use]
pub fn user_certificate(user: &str) -> String {
    format!("users/{user}")
}

/// A user's subject: the user, and an organization for each group.
#[must_use]
pub fn user_subject(user: &User) -> Subject {
    Subject { common_name: user.name.clone(), organizations: user.groups.clone() }
}

impl Leaf {
    /// Its subject on this node. A certificate of the cluster takes nothing from the node.
    #[must_use]
    pub fn subject(&self, node: &Node) -> Subject {
        let (common_name, organization) = match self.subject {
            Holder::User(user) => (user.to_owned(), None),
            Holder::Member(user, group) => (user.to_owned(), Some(group)),
            Holder::Machine => (node.name.clone(), None),
            Holder::Kubelet => (format!("system:node:{}", node.name), Some("system:nodes")),
        };
        Subject { common_name, organizations: organization.map(str::to_owned).into_iter().collect() }
    }

    /// Its names on this node: DNS names sorted, then addresses, none twice, as kubeadm leaves them.
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

    /// The API server that a kubeconfig names on this node; nothing for a pair.
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
