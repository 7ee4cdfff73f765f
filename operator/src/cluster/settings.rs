//! Settings that are taken as they stand: what admission would refuse of them is refused here too.

use std::net::IpAddr;

use keyplane_crds::ClusterSpecSpec;
use serde_json::{Map, Value};

use super::{FieldError, is_dns_name};

/// The name begins the names of Secrets, which have room for 253 characters, and is a label's value, which has room for 63.
pub(super) fn refuse_name(name: &str) -> Result<(), FieldError> {
    if is_dns_name(name) && !name.contains('.') && name.len() <= 50 {
        return Ok(());
    }
    Err(FieldError::new("metadata.name", format!("{name:?} must be a DNS label of at most 50 characters")))
}

/// What would end in a certificate or a flag as it stands.
pub(super) fn refuse_settings(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let (control_plane, stacked) = (&spec.control_plane, &spec.etcd.stacked);
    let names = [
        ("spec.controlPlane.apiServer.certSANs", &control_plane.api_server.cert_sans),
        ("spec.etcd.stacked.serverCertSANs", &stacked.server_cert_sans),
        ("spec.etcd.stacked.peerCertSANs", &stacked.peer_cert_sans),
    ];
    for (field, names) in names {
        let bad =
            |name: &&String| name.parse::<IpAddr>().is_err() && !is_dns_name(name.strip_prefix("*.").unwrap_or(name));
        if let Some(name) = names.iter().find(bad) {
            return Err(FieldError::new(field, format!("{name:?} is neither an IP address nor a lower-case DNS name")));
        }
    }
    let arguments = [
        ("spec.controlPlane.apiServer.extraArgs", &control_plane.api_server.extra_args),
        ("spec.controlPlane.controllerManager.extraArgs", &control_plane.controller_manager.extra_args),
        ("spec.controlPlane.scheduler.extraArgs", &control_plane.scheduler.extra_args),
        ("spec.etcd.stacked.extraArgs", &stacked.extra_args),
        ("spec.addons.flannel.extraArgs", &spec.addons.flannel.extra_args),
    ];
    for (field, arguments) in arguments {
        let bad = |name: &str| name.starts_with('-') || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if let Some(argument) = arguments.iter().find(|argument| argument.name.is_empty() || bad(&argument.name)) {
            let message =
                format!("{:?} is the flag without dashes before it, for example audit-log-path", argument.name);
            return Err(FieldError::new(field, message));
        }
    }
    let ours =
        ["apiVersion", "kind", "staticPodPath", "rotateCertificates", "serverTLSBootstrap", "containerRuntimeEndpoint"];
    let kubelet = control_plane.kubelet.iter().flat_map(|settings| settings.keys());
    if let Some(key) = kubelet.into_iter().find(|key| ours.contains(&key.as_str())) {
        return Err(FieldError::new("spec.controlPlane.kubelet", format!("{key} is set by Keyplane: leave it out")));
    }
    refuse_addons(spec)
}

/// kube-proxy's modes: 1.36 and 1.37 have all three, IPVS behind a gate that is on (`KubeProxyIPVS`, deprecated).
const PROXY_MODES: &[&str] = &["", "iptables", "nftables", "ipvs"];
/// Flannel's backends that its documentation recommends and that can carry two address families.
const FLANNEL_BACKENDS: &[&str] = &["vxlan", "host-gw", "wireguard"];

fn refuse_addons(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let (proxy, flannel) = (&spec.addons.kube_proxy, &spec.addons.flannel);
    let has = |settings: &Option<Map<String, Value>>, keys: &[&str]| {
        settings.iter().flat_map(Map::keys).find(|key| keys.contains(&key.as_str())).cloned()
    };
    let wrong = |field: &str, message: String| Err(FieldError::new(format!("spec.addons.{field}"), message));
    if !PROXY_MODES.contains(&proxy.mode.as_str()) {
        return wrong("kubeProxy.mode", format!("{:?} is none: write iptables, nftables or ipvs", proxy.mode));
    }
    if let Some(key) = has(&proxy.config, &["apiVersion", "kind", "clientConnection"]) {
        return wrong("kubeProxy.config", format!("{key} is set by Keyplane: leave it out"));
    }
    if has(&proxy.config, &["mode"]).is_some() {
        return wrong("kubeProxy.config", "write the mode as spec.addons.kubeProxy.mode".to_owned());
    }
    if !FLANNEL_BACKENDS.contains(&flannel.backend.as_str()) {
        return wrong("flannel.backend", format!("{:?} is none: write vxlan, host-gw or wireguard", flannel.backend));
    }
    if let Some(key) = has(&flannel.backend_options, &["Type", "PSK"]) {
        let cure = if key == "PSK" { "it would stand in a ConfigMap" } else { "it is spec.addons.flannel.backend" };
        return wrong("flannel.backendOptions", format!("{key}: {cure}: leave it out"));
    }
    if flannel.enabled && spec.network.pod_cidrs.is_empty() {
        let cure = "needs addresses for Pods: write spec.network.podCIDRs, for example [10.244.0.0/16]";
        return wrong("flannel", cure.to_owned());
    }
    match &spec.scale {
        Some(scale) if !(1..=5000).contains(&scale.nodes) => {
            Err(FieldError::new("spec.scale.nodes", format!("{}: Kubernetes is made for 1 to 5000 Nodes", scale.nodes)))
        }
        _ => Ok(()),
    }
}
