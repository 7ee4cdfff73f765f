//! The flags and the static pod of kube-apiserver (kubeadm's `phases/controlplane/manifests.go`).

use super::arguments::{Arguments, value_of};
use super::options;
use super::static_pod::{Component, Mounts, ProbeTarget, probe_host};
use crate::images::Image;
use crate::model::{API_SERVER_PORT, Cluster, Node, joined};
use crate::pki::places::{PKI_DIRECTORY, pki_file};
use crate::yaml;

/// The CA bundle that verifies etcd, stacked or external, below kubeadm's `pki` directory.
pub const ETCD_TRUST: &str = "etcd/ca.crt";
/// The client certificate of the API server for etcd, stacked or external.
pub const ETCD_CLIENT_CERTIFICATE: &str = "apiserver-etcd-client.crt";
/// The key of [`ETCD_CLIENT_CERTIFICATE`].
pub const ETCD_CLIENT_KEY: &str = "apiserver-etcd-client.key";

/// The time for which a stopping API server serves requests while /readyz fails. A load balancer with a health check
/// every one to five seconds and a threshold of two or three failures has removed the API server by then.
const SHUTDOWN_DELAY: &str = "15s";
/// The termination grace period: the shutdown delay, and then the time for running requests. Watches end at once.
const TERMINATION_GRACE_SECONDS: i64 = 60;

pub(super) fn manifest(cluster: &Cluster, node: &Node) -> String {
    let written = &cluster.spec.control_plane.api_server;
    let address = node.advertise_address.to_string();
    let mut pod = Component {
        image: Image::ApiServer,
        command: command(cluster, node),
        annotation: Some((
            "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint",
            node.local_endpoint().to_string(),
        )),
        mounts: Mounts::default()
            .directory("k8s-certs", PKI_DIRECTORY, true)
            .system_cas()
            .extra(&options::extra_volumes(cluster)),
        requests: &[("cpu", "250m")],
        resources: written.resources.clone(),
        probe: ProbeTarget { host: probe_host(&address), port: i32::from(API_SERVER_PORT), scheme: "HTTPS" },
        liveness_path: "/livez",
        readiness_path: Some("/readyz"),
        startup_path: "/livez",
    }
    .pod(cluster);
    if let Some(spec) = &mut pod.spec {
        spec.termination_grace_period_seconds = Some(TERMINATION_GRACE_SECONDS);
    }
    let annotation = options::annotation(cluster).map(|(key, value)| (key.to_owned(), value));
    pod.metadata.annotations.get_or_insert_default().extend(annotation);
    yaml::write_object(&pod)
}

pub(super) fn command(cluster: &Cluster, node: &Node) -> Vec<String> {
    let extra = &cluster.api_server_arguments();
    let file = |name: &str| pki_file(cluster.layout(), name);
    let etcd_servers = match cluster.external_etcd() {
        Some(external) => external.endpoints.join(","),
        // With another `advertise-client-urls`, only that URL is sure to be served.
        None => value_of(&cluster.spec.etcd.stacked.extra_args, "advertise-client-urls")
            .map_or_else(|| super::etcd::local_client_url(node), str::to_owned),
    };
    let mut arguments = Arguments::default()
        .with("advertise-address", node.advertise_address.to_string())
        .with("enable-admission-plugins", "NodeRestriction")
        .with("service-cluster-ip-range", joined(&cluster.service_cidrs))
        .with("service-account-key-file", file("sa.pub"))
        .with("service-account-signing-key-file", file("sa.key"))
        .with("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.spec.network.dns_domain))
        .with("client-ca-file", file("ca.crt"))
        .with("tls-cert-file", file("apiserver.crt"))
        .with("tls-private-key-file", file("apiserver.key"))
        .with("kubelet-client-certificate", file("apiserver-kubelet-client.crt"))
        .with("kubelet-client-key", file("apiserver-kubelet-client.key"))
        // Not kubeadm's: strict approval of serving certificates is worth little if the API server does not verify
        // them.
        .with("kubelet-certificate-authority", file("ca.crt"))
        .with("enable-bootstrap-token-auth", "true")
        .with("secure-port", API_SERVER_PORT.to_string())
        .with("allow-privileged", "true")
        .with("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname")
        .with("requestheader-username-headers", "X-Remote-User")
        .with("requestheader-group-headers", "X-Remote-Group")
        .with("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .with("requestheader-client-ca-file", file("front-proxy-ca.crt"))
        .with("requestheader-allowed-names", "front-proxy-client")
        .with("proxy-client-cert-file", file("front-proxy-client.crt"))
        .with("proxy-client-key-file", file("front-proxy-client.key"))
        // Not kubeadm's: a stopping API server still serves while load balancers notice, and asks clients to reconnect.
        .with("shutdown-delay-duration", SHUTDOWN_DELAY)
        .with("shutdown-send-retry-after", "true")
        .with("etcd-servers", etcd_servers)
        .with("etcd-cafile", file(ETCD_TRUST))
        .with("etcd-certfile", file(ETCD_CLIENT_CERTIFICATE))
        .with("etcd-keyfile", file(ETCD_CLIENT_KEY));
    // Without kube-proxy on the host Service addresses are not reachable: the API server connects to the endpoints of
    // webhooks and aggregated API servers directly.
    if !cluster.has_kubelet(node) {
        arguments = arguments.with("enable-aggregator-routing", "true");
    }
    // Structured authorization and the flag exclude each other.
    if value_of(extra, "authorization-config").is_none() {
        arguments = arguments.with("authorization-mode", "Node,RBAC");
    }
    // The flags of options are in the place of extraArgs, from which `kubeadm upgrade` reads them.
    arguments.command("kube-apiserver", &options::extra_arguments(cluster))
}
