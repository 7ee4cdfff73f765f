//! Which image each component runs.

use std::fmt;

use crate::cluster::Cluster;

/// kubeadm's `PauseVersion`, the same for 1.36 and 1.37.
const PAUSE_TAG: &str = "3.10.2";

/// A component that runs as a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// etcd.
    Etcd,
    /// What holds a pod's namespaces.
    Pause,
}

impl Image {
    /// The image's reference: the override, or the repository with the version's tag.
    #[must_use]
    pub fn reference(self, cluster: &Cluster) -> String {
        let images = &cluster.spec.images;
        let (written, tag) = match self {
            Self::ApiServer => (&images.api_server, cluster.version.to_string()),
            Self::ControllerManager => (&images.controller_manager, cluster.version.to_string()),
            Self::Scheduler => (&images.scheduler, cluster.version.to_string()),
            // A parsed version always has an etcd.
            Self::Etcd => (&images.etcd, cluster.version.etcd_image_tag().unwrap_or_default().to_owned()),
            Self::Pause => (&None, PAUSE_TAG.to_owned()),
        };
        written.clone().unwrap_or_else(|| format!("{}/{self}:{tag}", cluster.spec.image_repository))
    }
}

impl fmt::Display for Image {
    /// The image's name, which is also the component's and its pod's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Etcd => "etcd",
            Self::Pause => "pause",
        })
    }
}
