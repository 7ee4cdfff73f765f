//! The flags and the static pod of kube-controller-manager (kubeadm's `phases/controlplane/manifests.go`).

use super::arguments::{Arguments, value_of};
use super::static_pod::{Component, Mounts, ProbeTarget, probe_host};
use crate::images::Image;
use crate::kubeconfig::CLUSTER_NAME;
use crate::model::{Cluster, joined};
use crate::pki::CaName;
use crate::pki::places::{self, PKI_DIRECTORY, SIGNING_CERTIFICATE, pki_file};

const KUBECONFIG: &str = "controller-manager.conf";
/// `KubeControllerManagerPort` of Kubernetes.
const PORT: i32 = 10257;

pub(super) fn manifest(cluster: &Cluster) -> String {
    let written = &cluster.spec.control_plane.controller_manager;
    let address = value_of(&written.extra_args, "bind-address").unwrap_or("127.0.0.1");
    Component {
        image: Image::ControllerManager,
        command: command(cluster),
        annotation: None,
        mounts: Mounts::default()
            .directory("k8s-certs", PKI_DIRECTORY, true)
            .system_cas()
            .file("kubeconfig", &places::kubeconfig(cluster.layout(), KUBECONFIG))
            .extra(&written.extra_volumes),
        requests: &[("cpu", "200m")],
        resources: written.resources.clone(),
        probe: ProbeTarget { host: probe_host(address), port: PORT, scheme: "HTTPS" },
        liveness_path: "/healthz",
        readiness_path: None,
        startup_path: "/healthz",
    }
    .manifest(cluster)
}

pub(super) fn command(cluster: &Cluster) -> Vec<String> {
    let file = |name: &str| pki_file(cluster.layout(), name);
    let kubeconfig = places::kubeconfig(cluster.layout(), KUBECONFIG);
    // As kubeadm: without these files the controller-manager signs no CSRs, and Keyplane forwards them to the external
    // signer.
    let (signing_certificate, signing_key) = if cluster.external_cas.contains(&CaName::Cluster) {
        (String::new(), String::new())
    } else {
        (file(SIGNING_CERTIFICATE), file("ca.key"))
    };
    let mut arguments = Arguments::default()
        .with("bind-address", "127.0.0.1")
        .with("leader-elect", "true")
        .with("kubeconfig", &kubeconfig)
        .with("authentication-kubeconfig", &kubeconfig)
        .with("authorization-kubeconfig", &kubeconfig)
        .with("client-ca-file", file("ca.crt"))
        .with("requestheader-client-ca-file", file("front-proxy-ca.crt"))
        .with("root-ca-file", file("ca.crt"))
        .with("service-account-private-key-file", file("sa.key"))
        .with("cluster-signing-cert-file", signing_certificate)
        .with("cluster-signing-key-file", signing_key)
        .with("use-service-account-credentials", "true")
        .with("controllers", "*,bootstrapsigner,tokencleaner")
        .with("cluster-name", CLUSTER_NAME);
    if !cluster.pod_cidrs.is_empty() {
        arguments = arguments
            .with("allocate-node-cidrs", "true")
            .with("cluster-cidr", joined(&cluster.pod_cidrs))
            .with("service-cluster-ip-range", joined(&cluster.service_cidrs));
    }
    arguments.command("kube-controller-manager", &cluster.controller_manager_arguments())
}
