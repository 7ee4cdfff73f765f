//! kubeadm's `ClusterConfiguration` in the ConfigMap `kube-system/kubeadm-config`. `kubeadm join` and `kubeadm upgrade`
//! read the configuration of the cluster from it.

use std::time::Duration;

use keyplane_crds::{Argument, HostPathMount};
use serde_json::{Map, Value, json};

use super::apiserver::{ETCD_CLIENT_CERTIFICATE, ETCD_CLIENT_KEY, ETCD_TRUST};
use super::options;
use crate::kubeconfig::CLUSTER_NAME;
use crate::model::{Cluster, Version, joined};
use crate::pki::places::{PKI_DIRECTORY, pki_file};
use crate::yaml;

/// Renders the configuration as YAML. During an upgrade `version` may still be older than the version in the spec.
#[must_use]
pub fn cluster_configuration(cluster: &Cluster, version: Version) -> String {
    let control_plane = &cluster.spec.control_plane;
    let api_server = &control_plane.api_server;
    let mut networking = Map::new();
    networking.insert("dnsDomain".to_owned(), cluster.spec.network.dns_domain.clone().into());
    networking.insert("serviceSubnet".to_owned(), joined(&cluster.service_cidrs).into());
    insert_unless_empty(&mut networking, "podSubnet", joined(&cluster.pod_cidrs).into());
    let mut api_server_section = component(&options::extra_arguments(cluster), &options::extra_volumes(cluster));
    insert_unless_empty(&mut api_server_section, "certSANs", json!(api_server.cert_sans));
    let controller_manager = &control_plane.controller_manager;
    let scheduler = &control_plane.scheduler;
    yaml::write(&json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "apiServer": api_server_section,
        "caCertificateValidityPeriod": go_duration(cluster.policy.ca_validity),
        "certificateValidityPeriod": go_duration(cluster.policy.default_leaf().validity),
        "certificatesDir": PKI_DIRECTORY,
        "clusterName": CLUSTER_NAME,
        "controlPlaneEndpoint": cluster.endpoint.to_string(),
        "controllerManager": component(&cluster.controller_manager_arguments(), &controller_manager.extra_volumes),
        "dns": addon(cluster.spec.addons.core_dns.enabled),
        "encryptionAlgorithm": cluster.policy.default_leaf().key_algorithm,
        "etcd": etcd(cluster),
        "imageRepository": cluster.spec.image_repository,
        "kubernetesVersion": version.to_string(),
        "networking": networking,
        "proxy": addon(cluster.spec.addons.kube_proxy.enabled),
        "scheduler": component(&cluster.scheduler_arguments(), &scheduler.extra_volumes),
    }))
}

fn etcd(cluster: &Cluster) -> Value {
    if let Some(external) = cluster.external_etcd() {
        return json!({"external": {
            "endpoints": external.endpoints,
            "caFile": pki_file(cluster.layout(), ETCD_TRUST),
            "certFile": pki_file(cluster.layout(), ETCD_CLIENT_CERTIFICATE),
            "keyFile": pki_file(cluster.layout(), ETCD_CLIENT_KEY),
        }});
    }
    let stacked = &cluster.spec.etcd.stacked;
    let mut local = Map::new();
    local.insert("dataDir".to_owned(), stacked.data_dir.clone().into());
    insert_unless_empty(&mut local, "extraArgs", arguments(&stacked.extra_args));
    insert_unless_empty(&mut local, "serverCertSANs", json!(stacked.server_cert_sans));
    insert_unless_empty(&mut local, "peerCertSANs", json!(stacked.peer_cert_sans));
    json!({"local": local})
}

fn component(extra_args: &[Argument], extra_volumes: &[HostPathMount]) -> Map<String, Value> {
    let mut section = Map::new();
    insert_unless_empty(&mut section, "extraArgs", arguments(extra_args));
    insert_unless_empty(&mut section, "extraVolumes", Value::Array(extra_volumes.iter().map(volume).collect()));
    section
}

/// Returns the section of an add-on. `kubeadm upgrade` skips a disabled add-on.
fn addon(enabled: bool) -> Value {
    if enabled { json!({}) } else { json!({"disabled": true}) }
}

fn arguments(arguments: &[Argument]) -> Value {
    arguments.iter().map(|argument| json!({"name": argument.name, "value": argument.value})).collect()
}

fn volume(mount: &HostPathMount) -> Value {
    let mut volume = Map::new();
    volume.insert("name".to_owned(), mount.name.clone().into());
    volume.insert("hostPath".to_owned(), mount.host_path.clone().into());
    volume.insert("mountPath".to_owned(), mount.mount_path.clone().into());
    if mount.read_only {
        volume.insert("readOnly".to_owned(), true.into());
    }
    insert_unless_empty(&mut volume, "pathType", mount.path_type.clone().into());
    Value::Object(volume)
}

fn insert_unless_empty(section: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if !empty {
        section.insert(key.to_owned(), value);
    }
}

/// Formats a duration as Go does.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
