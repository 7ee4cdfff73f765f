//! Settings that are taken as they stand: what admission would refuse of them is refused here too.

use std::net::IpAddr;

use http::Uri;
use keyplane_crds::{Argument, ClusterSpecSpec, Etcd, StackedEtcd};

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
    let ours =
        ["apiVersion", "kind", "staticPodPath", "rotateCertificates", "serverTLSBootstrap", "containerRuntimeEndpoint"];
    let kubelet = control_plane.kubelet.iter().flat_map(|settings| settings.keys());
    match kubelet.into_iter().find(|key| ours.contains(&key.as_str())) {
        Some(key) => {
            Err(FieldError::new("spec.controlPlane.kubelet", format!("{key} is set by Keyplane: leave it out")))
        }
        None => Ok(()),
    }
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
                    "{endpoint:?} is no URL with https, a host and a port, for example https://etcd1.example:2379"
                );
                return Err(FieldError::new(field, message));
            }
        }
    }
    Ok(())
}

/// The API server takes lists of them, with commas and semicolons between.
fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let bare = !text.ends_with('/') && uri.path() == "/" && uri.query().is_none();
    bare && uri.scheme_str() == Some("https") && uri.port_u16().is_some() && !text.contains([',', ';', '#', '@'])
}

/// The value of a label, as Kubernetes checks it.
pub(super) fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}
