//! The units of a control-plane node.

use super::super::{apiserver, controller_manager, etcd, options, scheduler};
use super::unit::Service;
use super::{file, program, restart, setting};
use crate::etcd::InitialCluster;
use crate::host_files::File;
use crate::model::{Cluster, Node};

const KUBERNETES: &str = "https://kubernetes.io/docs/reference/command-line-tools-reference/";

/// The limit in etcd's own unit: a member has a connection for each watch of each API server.
const ETCD_OPEN_FILES: &str = "65536";

/// The OOM score adjustment of a system-node-critical Pod, such as kubeadm's static pods: killed last.
const OUT_OF_MEMORY_SCORE: &str = "-997";

pub(super) fn files(cluster: &Cluster, node: &Node, initial_cluster: &InitialCluster) -> Vec<File> {
    let api_server = ["network-online.target", "kube-apiserver.service"];
    let mut files = vec![
        file("kube-apiserver.service", "/etc/systemd/system/kube-apiserver.service", api_server_unit(cluster, node)),
        file(
            "kube-controller-manager.service",
            "/etc/systemd/system/kube-controller-manager.service",
            Service {
                description: "Kubernetes controller manager",
                documentation: &format!("{KUBERNETES}kube-controller-manager/"),
                after: &api_server,
                wants: &["network-online.target"],
                settings: settings(controller_manager::command(cluster), vec![]),
                ..Service::default()
            }
            .text(),
        ),
        file(
            "kube-scheduler.service",
            "/etc/systemd/system/kube-scheduler.service",
            Service {
                description: "Kubernetes scheduler",
                documentation: &format!("{KUBERNETES}kube-scheduler/"),
                after: &api_server,
                wants: &["network-online.target"],
                settings: settings(scheduler::command(cluster), vec![]),
                ..Service::default()
            }
            .text(),
        ),
        file("kube-scheduler.yaml", scheduler::CONFIGURATION_PATH, scheduler::configuration(cluster)),
    ];
    files.extend(options::files(cluster));
    if cluster.external_etcd().is_none() {
        let unit = etcd_unit(cluster, node, initial_cluster);
        files.insert(0, file("etcd.service", "/etc/systemd/system/etcd.service", unit));
    }
    files
}

fn etcd_unit(cluster: &Cluster, node: &Node, initial_cluster: &InitialCluster) -> String {
    Service {
        description: "etcd, where the cluster's objects are stored",
        documentation: "https://etcd.io/docs/",
        after: &["network-online.target"],
        wants: &["network-online.target"],
        settings: settings(
            etcd::command(cluster, node, initial_cluster),
            // etcd reports readiness only with a quorum, and the other members may start much later.
            vec![
                setting("Type", "notify"),
                setting("TimeoutStartSec", "infinity"),
                setting("LimitNOFILE", ETCD_OPEN_FILES),
            ],
        ),
        ..Service::default()
    }
    .text()
}

fn api_server_unit(cluster: &Cluster, node: &Node) -> String {
    // kubeadm's startup timeout for a component.
    let mut own = vec![setting("Type", "notify"), setting("TimeoutStartSec", "4min")];
    // systemd ignores settings with the prefix X-. The checksum changes the unit when content changes that the API
    // server reads only at startup.
    own.extend(options::annotation(cluster).map(|(_, checksum)| ("X-OptionsChecksum", checksum)));
    Service {
        description: "Kubernetes API server",
        documentation: &format!("{KUBERNETES}kube-apiserver/"),
        after: &["network-online.target", "etcd.service"],
        wants: &["network-online.target", "etcd.service"],
        settings: settings(apiserver::command(cluster, node), own),
        ..Service::default()
    }
    .text()
}

/// Returns the common settings of the four components. None of them needs new privileges, home directories, or write
/// access to /usr.
fn settings(command: Vec<String>, own: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    let mut settings = own;
    settings.push(("ExecStart", program(command)));
    settings.extend(restart());
    settings.extend([
        setting("OOMScoreAdjust", OUT_OF_MEMORY_SCORE),
        setting("NoNewPrivileges", "true"),
        setting("ProtectSystem", "true"),
        setting("ProtectHome", "true"),
    ]);
    settings
}
