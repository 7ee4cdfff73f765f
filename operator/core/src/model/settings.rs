//! Validation of settings that need no parsing: the same refusals as in admission.

use std::net::IpAddr;

use http::Uri;
use keyplane_crds::{Argument, ClusterSpecSpec, Etcd, Layout, RegistryMirror, StackedEtcd};
use serde_json::{Map, Value};

use super::addons::refuse_addons;
use super::{FieldError, is_dns_name};

/// Refuses a name that is too long for derived names. The name is a prefix of Secret names (at most 253 characters) and
/// a label value (at most 63 characters).
pub(super) fn refuse_name(name: &str) -> Result<(), FieldError> {
    if is_dns_name(name) && !name.contains('.') && name.len() <= 50 {
        return Ok(());
    }
    Err(FieldError::new("metadata.name", format!("{name:?} must be a DNS label of at most 50 characters")))
}

/// Refuses invalid values that Keyplane would copy into certificates or flags.
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
    refuse_etcd(&spec.etcd)?;
    let overrides = |argument: &Argument| argument.name == "etcd-servers-overrides";
    if spec.etcd.events.is_some() && control_plane.api_server.extra_args.iter().any(overrides) {
        let message = "becomes the API server's flag etcd-servers-overrides: leave it out of apiServer.extraArgs";
        return Err(FieldError::new("spec.etcd.events", message));
    }
    refuse_layout(spec)?;
    refuse_mirrors(&spec.registry_mirrors)?;
    refuse_addons(spec)?;
    refuse_kubelet_settings("spec.controlPlane.kubelet", control_plane.kubelet.as_ref())
}

/// Refuses kubelet settings that Keyplane sets itself.
pub(crate) fn refuse_kubelet_settings(field: &str, settings: Option<&Map<String, Value>>) -> Result<(), FieldError> {
    let ours =
        ["apiVersion", "kind", "staticPodPath", "rotateCertificates", "serverTLSBootstrap", "containerRuntimeEndpoint"];
    match settings.into_iter().flat_map(Map::keys).find(|key| ours.contains(&key.as_str())) {
        Some(key) => Err(FieldError::new(field, format!("{key} is set by Keyplane: leave it out"))),
        None => Ok(()),
    }
}

/// Refuses settings that have no effect with the layout of the spec.
fn refuse_layout(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let control_plane = &spec.control_plane;
    if control_plane.layout == Layout::StaticPod {
        let message = "can be false only with the layout Systemd: static pods need a kubelet, and a kubelet registers \
                       its Node";
        return if control_plane.register_nodes {
            Ok(())
        } else {
            Err(FieldError::new("spec.controlPlane.registerNodes", message))
        };
    }
    if !control_plane.register_nodes && (control_plane.kubelet.is_some() || control_plane.taints.is_some()) {
        let message = "kubelet and taints are for Nodes, and with registerNodes: false there are none: leave them out";
        return Err(FieldError::new("spec.controlPlane", message));
    }
    let api_server = &control_plane.api_server;
    let components = [&control_plane.controller_manager, &control_plane.scheduler];
    let volumes = components.map(|component| &component.extra_volumes).into_iter().chain([&api_server.extra_volumes]);
    let resources = components.map(|component| &component.resources).into_iter().chain([&api_server.resources]);
    if volumes.into_iter().any(|volumes| !volumes.is_empty()) || resources.into_iter().any(Option::is_some) {
        let message = "extraVolumes and resources are for containers; with the layout Systemd a component sees the \
                       node's own files: leave them out, and limit a unit with a drop-in";
        return Err(FieldError::new("spec.controlPlane", message));
    }
    refuse_containers_of_units(spec)
}

/// Refuses settings of containers whose component is a systemd unit with the layout `Systemd`.
fn refuse_containers_of_units(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let images = &spec.images;
    let of_units = [
        ("apiServer", &images.api_server),
        ("controllerManager", &images.controller_manager),
        ("scheduler", &images.scheduler),
        ("etcd", &images.etcd),
        ("kubeProxy", &images.kube_proxy),
    ];
    if let Some((name, _)) = of_units.into_iter().find(|(_, image)| image.is_some()) {
        let message = "is the image of a container; with the layout Systemd the component is a systemd unit without an \
                       image: leave it out, and install the program on the host";
        return Err(FieldError::new(format!("spec.images.{name}"), message));
    }
    if spec.addons.kube_proxy.resources.is_some() {
        let message = "is for a container; with the layout Systemd kube-proxy is a systemd unit: leave it out, and limit \
                       the unit with a drop-in";
        return Err(FieldError::new("spec.addons.kubeProxy.resources", message));
    }
    Ok(())
}

/// Refuses mirrors that would break files: registries become directory names, and URLs become lines of TOML.
fn refuse_mirrors(mirrors: &[RegistryMirror]) -> Result<(), FieldError> {
    const FIELD: &str = "spec.registryMirrors";
    for (index, mirror) in mirrors.iter().enumerate() {
        let registry = mirror.registry.as_str();
        let (host, port) = registry.split_once(':').unwrap_or((registry, "1"));
        if registry != "_default" && !(is_dns_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0)) {
            let message =
                format!("{registry:?} is not a registry host as in image names: write one like registry.k8s.io");
            return Err(FieldError::new(format!("{FIELD}[].registry"), message));
        }
        if mirrors.iter().take(index).any(|other| other.registry == registry) {
            return Err(FieldError::new(FIELD, format!("{registry} is listed twice: list its endpoints in one entry")));
        }
        let is_url = |url: &str| {
            let rest = url.strip_prefix("https://").or(url.strip_prefix("http://"));
            rest.is_some_and(|rest| {
                rest.bytes().next().is_some_and(|first| first != b'/')
                    && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~:/[]-".contains(&byte))
            })
        };
        let bad = mirror.endpoints.iter().find(|url| !is_url(url));
        if bad.is_some() || mirror.endpoints.is_empty() {
            let message = format!(
                "{:?} of {registry} is not a URL without user and query: write one like https://mirror.corp.example",
                bad.map_or("", String::as_str)
            );
            return Err(FieldError::new(format!("{FIELD}[].endpoints"), message));
        }
        let good = |text: &str| text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY");
        if mirror.ca_bundle.as_ref().is_some_and(|text| !good(text)) {
            return Err(FieldError::new(format!("{FIELD}[].caBundle"), "must be certificates in PEM, and no key"));
        }
    }
    Ok(())
}

fn refuse_etcd(etcd: &Etcd) -> Result<(), FieldError> {
    if etcd.external.is_some() && etcd.stacked != StackedEtcd::default() {
        let message = "stacked and external exclude each other: leave stacked out";
        return Err(FieldError::new("spec.etcd", message));
    }
    let external = etcd.external.iter().map(|external| ("spec.etcd.external.endpoints", &external.endpoints));
    let events = etcd.events.iter().map(|events| ("spec.etcd.events.endpoints", &events.endpoints));
    for (field, endpoints) in external.chain(events) {
        let bad = |endpoint: &&String| !is_endpoint(endpoint);
        match endpoints.iter().find(bad) {
            None if endpoints.is_empty() => return Err(FieldError::new(field, "is empty: write at least one URL")),
            None => {}
            Some(endpoint) => {
                let message = format!(
                    "{endpoint:?} is not a URL with https, a host and a port, for example https://etcd1.example:2379"
                );
                return Err(FieldError::new(field, message));
            }
        }
    }
    Ok(())
}

/// Returns whether the text is a URL of an etcd server. The API server takes lists of URLs with commas and semicolons,
/// so both are refused.
fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let bare = !text.ends_with('/') && uri.path() == "/" && uri.query().is_none();
    bare && uri.scheme_str() == Some("https") && uri.port_u16().is_some() && !text.contains([',', ';', '#', '@'])
}

/// Returns whether the text is a label value, by the rules of Kubernetes.
pub(super) fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}
