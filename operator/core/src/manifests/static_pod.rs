//! The common static pod of the four components (kubeadm's `util/staticpod`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, HostPathVolumeSource, Pod, PodSecurityContext, PodSpec, PodStatus, Probe,
    ResourceRequirements, SeccompProfile, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keyplane_crds::HostPathMount;

use crate::images::Image;
use crate::model::Cluster;
use crate::yaml;

/// The name of the probe port. With a named port, a user changes the port of a component in one place.
const PROBE_PORT: &str = "probe-port";

/// The differences between the components.
pub(super) struct Component {
    pub(super) image: Image,
    pub(super) command: Vec<String>,
    pub(super) annotation: Option<(&'static str, String)>,
    pub(super) mounts: Mounts,
    pub(super) requests: &'static [(&'static str, &'static str)],
    pub(super) resources: Option<ResourceRequirements>,
    pub(super) probe: ProbeTarget,
    pub(super) liveness_path: &'static str,
    pub(super) readiness_path: Option<&'static str>,
    pub(super) startup_path: &'static str,
}

/// The target of the probes of a component.
pub(super) struct ProbeTarget {
    pub(super) host: String,
    pub(super) port: i32,
    pub(super) scheme: &'static str,
}

impl Component {
    /// Renders the manifest as YAML.
    pub(super) fn manifest(self, cluster: &Cluster) -> String {
        yaml::write_object(&self.pod(cluster))
    }

    /// Builds the static pod.
    pub(super) fn pod(self, cluster: &Cluster) -> Pod {
        let name = self.image.to_string();
        let probe = |path: &str, initial_delay, failures, period| Probe {
            http_get: Some(HTTPGetAction {
                host: Some(self.probe.host.clone()).filter(|host| !host.is_empty()),
                path: Some(path.to_owned()),
                port: IntOrString::String(PROBE_PORT.to_owned()),
                scheme: Some(self.probe.scheme.to_owned()),
                ..HTTPGetAction::default()
            }),
            initial_delay_seconds: initial_delay,
            timeout_seconds: Some(15),
            failure_threshold: Some(failures),
            period_seconds: Some(period),
            ..Probe::default()
        };
        let requests =
            self.requests.iter().map(|(resource, amount)| ((*resource).to_owned(), Quantity((*amount).to_owned())));
        let container = Container {
            name: name.clone(),
            image: Some(self.image.reference(cluster)),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(self.command),
            volume_mounts: Some(self.mounts.volume_mounts),
            liveness_probe: Some(probe(self.liveness_path, Some(10), 8, 10)),
            readiness_probe: self.readiness_path.map(|path| probe(path, None, 3, 1)),
            // 24 failures of 10 s: kubeadm's four minutes for a component to come up.
            startup_probe: Some(probe(self.startup_path, Some(10), 24, 10)),
            resources: Some(self.resources.unwrap_or_else(|| ResourceRequirements {
                requests: Some(requests.collect()),
                ..ResourceRequirements::default()
            })),
            ports: Some(vec![ContainerPort {
                name: Some(PROBE_PORT.to_owned()),
                container_port: self.probe.port,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            ..Container::default()
        };
        let labels = [("component", name.as_str()), ("tier", "control-plane")];
        Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some("kube-system".to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                annotations: self.annotation.map(|(key, value)| BTreeMap::from([(key.to_owned(), value)])),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: vec![container],
                host_network: Some(true),
                // The value of system-node-critical. No admission plugin fills in the priority of a static pod.
                priority: Some(2_000_001_000),
                priority_class_name: Some("system-node-critical".to_owned()),
                security_context: Some(PodSecurityContext {
                    seccomp_profile: Some(SeccompProfile {
                        type_: "RuntimeDefault".to_owned(),
                        ..SeccompProfile::default()
                    }),
                    ..PodSecurityContext::default()
                }),
                volumes: Some(self.mounts.volumes),
                ..PodSpec::default()
            }),
            status: Some(PodStatus::default()),
        }
    }
}

/// Host directories and files in a container; a later one replaces an earlier one with the same name. The order is
/// kubeadm's: volumes are sorted by name, mounts only where the user can add some (all components except etcd).
#[derive(Default)]
pub(super) struct Mounts {
    volumes: Vec<Volume>,
    volume_mounts: Vec<VolumeMount>,
}

impl Mounts {
    /// Adds a directory. The kubelet creates a missing directory.
    pub(super) fn directory(self, name: &str, path: &str, read_only: bool) -> Self {
        self.add(name, path, path, read_only, "DirectoryOrCreate")
    }

    /// Adds a read-only file.
    pub(super) fn file(self, name: &str, path: &str) -> Self {
        self.add(name, path, path, true, "FileOrCreate")
    }

    /// Adds the CA certificates of the host. kubeadm mounts the directories that exist on the host, because symbolic
    /// links in /etc/ssl/certs point to them; these are the directories of Debian and Ubuntu.
    pub(super) fn system_cas(self) -> Self {
        self.directory("ca-certs", "/etc/ssl/certs", true)
            .directory("etc-ca-certificates", "/etc/ca-certificates", true)
            .directory("usr-local-share-ca-certificates", "/usr/local/share/ca-certificates", true)
            .directory("usr-share-ca-certificates", "/usr/share/ca-certificates", true)
    }

    /// Adds the mounts of the user, after all others.
    pub(super) fn extra(self, extra: &[HostPathMount]) -> Self {
        let mut mounts = extra.iter().fold(self, |mounts, mount| {
            mounts.add(&mount.name, &mount.host_path, &mount.mount_path, mount.read_only, &mount.path_type)
        });
        mounts.volume_mounts.sort_by(|a, b| a.name.cmp(&b.name));
        mounts
    }

    fn add(mut self, name: &str, host_path: &str, mount_path: &str, read_only: bool, path_type: &str) -> Self {
        self.volumes.retain(|volume| volume.name != name);
        self.volumes.push(Volume {
            name: name.to_owned(),
            host_path: Some(HostPathVolumeSource { path: host_path.to_owned(), type_: Some(path_type.to_owned()) }),
            ..Volume::default()
        });
        self.volumes.sort_by(|a, b| a.name.cmp(&b.name));
        self.volume_mounts.retain(|mount| mount.name != name);
        self.volume_mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: mount_path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        });
        self
    }
}

/// Returns the host of a probe. An unspecified address can't be a destination; an empty host means the address of the
/// Pod.
pub(super) fn probe_host(address: &str) -> String {
    if address == "0.0.0.0" || address == "::" { String::new() } else { address.to_owned() }
}
