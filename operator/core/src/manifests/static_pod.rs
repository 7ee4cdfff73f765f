//! The static pod that all four components share (kubeadm's `util/staticpod`).

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

/// The probes' port has a name, so that a user who changes the component's port changes one place.
const PROBE_PORT: &str = "probe-port";

/// What differs between the components.
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

/// Where the probes of a component go.
pub(super) struct ProbeTarget {
    pub(super) host: String,
    pub(super) port: i32,
    pub(super) scheme: &'static str,
}

impl Component {
    /// The manifest as YAML.
    pub(super) fn manifest(self, cluster: &Cluster) -> String {
        yaml::write_object(&self.pod(cluster))
    }

    /// The static pod.
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
                // The value of system-node-critical; static pods are not admitted, so nobody else would fill it in.
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

/// Directories and files of the machine in a container; a later one of the same name wins. Volumes are sorted by name,
/// mounts only where the user can add some, which is everywhere but in etcd: kubeadm's orders.
#[derive(Default)]
pub(super) struct Mounts {
    volumes: Vec<Volume>,
    volume_mounts: Vec<VolumeMount>,
}

impl Mounts {
    /// Adds a directory that is made if it is missing.
    pub(super) fn directory(self, name: &str, path: &str, read_only: bool) -> Self {
        self.add(name, path, path, read_only, "DirectoryOrCreate")
    }

    /// Adds a file for reading.
    pub(super) fn file(self, name: &str, path: &str) -> Self {
        self.add(name, path, path, true, "FileOrCreate")
    }

    /// Adds the machine's certificate authorities. kubeadm mounts those of the directories that it finds on the machine,
    /// because links in /etc/ssl/certs lead there; these are Debian's and Ubuntu's.
    pub(super) fn system_authorities(self) -> Self {
        self.directory("ca-certs", "/etc/ssl/certs", true)
            .directory("etc-ca-certificates", "/etc/ca-certificates", true)
            .directory("usr-local-share-ca-certificates", "/usr/local/share/ca-certificates", true)
            .directory("usr-share-ca-certificates", "/usr/share/ca-certificates", true)
    }

    /// Adds the user's, as the last ones.
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

/// The host of a probe: an unspecified address can't be dialled, and none means the pod's own.
pub(super) fn probe_host(address: &str) -> String {
    if address == "0.0.0.0" || address == "::" { String::new() } else { address.to_owned() }
}
