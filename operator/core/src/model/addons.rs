//! Validation of `spec.addons` and `spec.scale`.

use keyplane_crds::ClusterSpecSpec;
use serde_json::{Map, Value};

use super::FieldError;

/// The modes of kube-proxy. 1.36 and 1.37 support all three; IPVS is behind a feature gate that is on by default
/// (`KubeProxyIPVS`, deprecated).
const PROXY_MODES: &[&str] = &["", "iptables", "nftables", "ipvs"];
/// The Flannel backends that its documentation recommends and that support dual stack.
const FLANNEL_BACKENDS: &[&str] = &["vxlan", "host-gw", "wireguard"];

/// Refuses the same add-on settings and sizes as admission.
pub(super) fn refuse_addons(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let (proxy, flannel) = (&spec.addons.kube_proxy, &spec.addons.flannel);
    let has = |settings: &Option<Map<String, Value>>, keys: &[&str]| {
        settings.iter().flat_map(Map::keys).find(|key| keys.contains(&key.as_str())).cloned()
    };
    let wrong = |field: &str, message: String| Err(FieldError::new(format!("spec.addons.{field}"), message));
    if !PROXY_MODES.contains(&proxy.mode.as_str()) {
        return wrong("kubeProxy.mode", format!("{:?} is not a mode: write iptables, nftables or ipvs", proxy.mode));
    }
    if let Some(key) = has(&proxy.config, &["apiVersion", "kind", "clientConnection", "hostnameOverride"]) {
        return wrong("kubeProxy.config", format!("{key} is set by Keyplane: leave it out"));
    }
    if has(&proxy.config, &["mode"]).is_some() {
        return wrong("kubeProxy.config", "write the mode as spec.addons.kubeProxy.mode".to_owned());
    }
    if !FLANNEL_BACKENDS.contains(&flannel.backend.as_str()) {
        return wrong(
            "flannel.backend",
            format!("{:?} is not a supported backend: write vxlan, host-gw or wireguard", flannel.backend),
        );
    }
    if let Some(key) = has(&flannel.backend_options, &["Type", "PSK"]) {
        let cure =
            if key == "PSK" { "the secret would be in a ConfigMap" } else { "the type is spec.addons.flannel.backend" };
        return wrong("flannel.backendOptions", format!("{key}: {cure}: leave it out"));
    }
    if flannel.enabled && spec.network.pod_cidrs.is_empty() {
        let cure = "needs a Pod network: set spec.network.podCIDRs, for example [10.244.0.0/16]";
        return wrong("flannel", cure.to_owned());
    }
    match &spec.scale {
        Some(scale) if !(1..=5000).contains(&scale.nodes) => {
            Err(FieldError::new("spec.scale.nodes", format!("{}: Kubernetes supports 1 to 5000 Nodes", scale.nodes)))
        }
        _ => Ok(()),
    }
}
