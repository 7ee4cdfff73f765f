//! The flags and the static pod of etcd (kubeadm's `phases/etcd/local.go`).

use super::arguments::{Arguments, value_of};
use super::static_pod::{Component, Mounts, ProbeTarget};
use crate::etcd::{CLIENT_PORT, InitialCluster, client_url, peer_url};
use crate::images::Image;
use crate::model::{Cluster, Node};
use crate::pki::places::{PKI_DIRECTORY, pki_file};

/// The port for health and metrics, without TLS and only on the loopback address.
const METRICS_PORT: u16 = 2381;

pub(super) fn manifest(cluster: &Cluster, node: &Node, initial_cluster: &InitialCluster) -> String {
    let etcd = &cluster.spec.etcd.stacked;
    let client_url = client_url(node.advertise_address);
    Component {
        image: Image::Etcd,
        command: command(cluster, node, initial_cluster),
        annotation: Some(("kubeadm.kubernetes.io/etcd.advertise-client-urls", client_url)),
        mounts: Mounts::default().directory("etcd-data", &etcd.data_dir, false).directory(
            "etcd-certs",
            &format!("{PKI_DIRECTORY}/etcd"),
            false,
        ),
        requests: &[("cpu", "100m"), ("memory", "100Mi")],
        resources: None,
        probe: probe(value_of(&etcd.extra_args, "listen-metrics-urls"), node),
        liveness_path: "/livez",
        readiness_path: Some("/readyz"),
        startup_path: "/readyz",
    }
    .manifest(cluster)
}

/// Returns the client URL of a member on its own host.
pub(super) fn local_client_url(node: &Node) -> String {
    format!("https://{}:{CLIENT_PORT}", bracketed(node.loopback()))
}

fn bracketed(loopback: &str) -> String {
    if loopback.contains(':') { format!("[{loopback}]") } else { loopback.to_owned() }
}

pub(super) fn command(cluster: &Cluster, node: &Node, initial_cluster: &InitialCluster) -> Vec<String> {
    let etcd = &cluster.spec.etcd.stacked;
    let file = |name: &str| pki_file(cluster.layout(), &format!("etcd/{name}"));
    let client_url = client_url(node.advertise_address);
    let peer_url = peer_url(node.advertise_address);
    let metrics_url = format!("http://{}:{METRICS_PORT}", bracketed(node.loopback()));
    let mut arguments = Arguments::default()
        .with("name", &node.name)
        .with("listen-client-urls", format!("{},{client_url}", local_client_url(node)))
        .with("advertise-client-urls", client_url)
        .with("listen-peer-urls", &peer_url)
        .with("initial-advertise-peer-urls", &peer_url)
        .with("initial-cluster", &initial_cluster.members)
        .with("data-dir", &etcd.data_dir)
        .with("cert-file", file("server.crt"))
        .with("key-file", file("server.key"))
        .with("trusted-ca-file", file("ca.crt"))
        .with("client-cert-auth", "true")
        .with("peer-cert-file", file("peer.crt"))
        .with("peer-key-file", file("peer.key"))
        .with("peer-trusted-ca-file", file("ca.crt"))
        .with("peer-client-cert-auth", "true")
        .with("snapshot-count", "10000")
        .with("listen-metrics-urls", metrics_url)
        .with("feature-gates", "InitialCorruptCheck=true")
        .with("watch-progress-notify-interval", "5s");
    // `kubeadm init` omits the flag; the default is a new cluster.
    if initial_cluster.existing {
        arguments = arguments.with("initial-cluster-state", "existing");
    }
    arguments.command("etcd", &etcd.extra_args)
}

/// Returns the probe target: the first of the user's metrics URLs, or the default.
fn probe(metrics_urls: Option<&str>, node: &Node) -> ProbeTarget {
    let default = || ProbeTarget { host: node.loopback().to_owned(), port: i32::from(METRICS_PORT), scheme: "HTTP" };
    let Some(url) = metrics_urls.and_then(|urls| urls.split(',').next()) else { return default() };
    let Some((scheme, rest)) = url.split_once("://") else { return default() };
    let address = rest.split('/').next().unwrap_or_default();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (address, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ProbeTarget {
        host: if host.is_empty() { node.loopback().to_owned() } else { host.to_owned() },
        port: port.unwrap_or(i32::from(METRICS_PORT)),
        scheme: if scheme == "https" { "HTTPS" } else { "HTTP" },
    }
}
