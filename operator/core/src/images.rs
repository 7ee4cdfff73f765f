//! The images of the components.

use std::fmt;

use crate::model::{Cluster, Version};

/// The default repository of kubeadm, the only one in which CoreDNS has a subdirectory.
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";

/// The Flannel image. Flannel has no version per Kubernetes version; the lab tests this one.
const FLANNEL: &str = "ghcr.io/flannel-io/flannel:v0.28.10";

/// The image in Flannel's manifest of the same version.
const FLANNEL_CNI_PLUGIN: &str = "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3";

/// A component that runs as a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// kube-proxy.
    KubeProxy,
    /// CoreDNS.
    CoreDns,
    /// The sandbox image of every Pod.
    Pause,
    /// etcd.
    Etcd,
    /// Flannel.
    Flannel,
    /// Flannel's CNI plugin.
    FlannelCniPlugin,
}

impl Image {
    /// Returns the image reference: the override, or the repository with the tag of the cluster's version.
    #[must_use]
    pub fn reference(self, cluster: &Cluster) -> String {
        self.reference_for(cluster, cluster.version)
    }

    /// Returns the image reference for a version: during an upgrade some components still have the old version.
    #[must_use]
    pub fn reference_for(self, cluster: &Cluster, version: Version) -> String {
        let images = &cluster.spec.images;
        let repository = &cluster.spec.image_repository;
        let in_repository = |tag: &str| format!("{repository}/{self}:{tag}");
        // A parsed version always has its tags.
        let tag = Option::unwrap_or_default;
        let (written, default) = match self {
            Self::ApiServer => (&images.api_server, in_repository(&version.to_string())),
            Self::ControllerManager => (&images.controller_manager, in_repository(&version.to_string())),
            Self::Scheduler => (&images.scheduler, in_repository(&version.to_string())),
            Self::KubeProxy => (&images.kube_proxy, in_repository(&version.to_string())),
            Self::CoreDns if repository == DEFAULT_REPOSITORY => {
                (&images.core_dns, format!("{repository}/coredns/{self}:{}", tag(version.core_dns_image_tag())))
            }
            Self::CoreDns => (&images.core_dns, in_repository(tag(version.core_dns_image_tag()))),
            Self::Pause => (&images.pause, in_repository(tag(version.pause_image_tag()))),
            Self::Etcd => (&images.etcd, in_repository(tag(version.etcd_image_tag()))),
            Self::Flannel => (&images.flannel, FLANNEL.to_owned()),
            Self::FlannelCniPlugin => (&images.flannel_cni_plugin, FLANNEL_CNI_PLUGIN.to_owned()),
        };
        written.clone().unwrap_or(default)
    }
}

impl fmt::Display for Image {
    /// Writes the name of the image, which is also the name of the component and its Pod.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
            Self::CoreDns => "coredns",
            Self::Pause => "pause",
            Self::Etcd => "etcd",
            Self::Flannel => "flannel",
            Self::FlannelCniPlugin => "flannel-cni-plugin",
        })
    }
}

/// Returns the images that the nodes of the cluster need, in the order of `kubeadm config images list`, then Flannel.
#[must_use]
pub fn required_images(cluster: &Cluster) -> Vec<String> {
    let addons = &cluster.spec.addons;
    let desired = [
        (Image::ApiServer, true),
        (Image::ControllerManager, true),
        (Image::Scheduler, true),
        (Image::KubeProxy, addons.kube_proxy.enabled),
        (Image::CoreDns, addons.core_dns.enabled),
        (Image::Pause, true),
        (Image::Etcd, cluster.spec.etcd.external.is_none()),
        (Image::Flannel, addons.flannel.enabled),
        (Image::FlannelCniPlugin, addons.flannel.enabled),
    ];
    desired.into_iter().filter(|(_, desired)| *desired).map(|(image, _)| image.reference(cluster)).collect()
}
