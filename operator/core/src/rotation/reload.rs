//! The files that each component reloads, and the files that require a restart (Kubernetes 1.36 and 1.37).
//!
//! A component that reads a file only at its start is restarted through its static pod. After such files have changed,
//! their checksum becomes an annotation of the manifest, and the kubelet recreates the pod. The order and the wait
//! conditions are those of every other change of a manifest.

use std::collections::BTreeMap;
use std::time::Duration;

use keyplane_crds::Layout;
use keyplane_crds::keys::RESTART_CHECKSUM_PREFIX;

use crate::checksum::checksum;
use crate::pki::places;

/// The way in which a changed file takes effect in a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadMode {
    /// The component reloads the file, after this time at the latest.
    Reload(Duration),
    /// The next TLS handshake uses the file.
    NextHandshake,
    /// The component requires a restart.
    Restart,
}

/// A file that a component reads.
#[derive(Debug)]
pub struct Row {
    /// The name of the component and of its static pod.
    pub component: &'static str,
    /// The path below kubeadm's `pki` directory, or a kubeconfig of `/etc/kubernetes`.
    pub file: &'static str,
    /// The way in which a change takes effect.
    pub reload: ReloadMode,
}

/// The interval in which `dynamiccertificates` reloads its files; it also watches them for changes.
const CONTENT_POLL: Duration = Duration::from_mins(1);
/// The interval in which client-go reloads certificate files (`transport/cert_rotation.go`), and since 1.36 CA files
/// (`transport/ca_rotation.go`).
pub const CLIENT_POLL: Duration = Duration::from_mins(5);

const fn row(component: &'static str, file: &'static str, reload: ReloadMode) -> Row {
    Row { component, file, reload }
}

/// The PKI files that the control-plane components read. Sources: `k8s.io/apiserver` `dynamiccertificates`
/// and `storagebackend/factory/etcd3.go`, client-go `transport`, etcd `client/pkg/transport/listener.go`, the
/// controller-manager's `signer/ca_provider.go` and `app/certificates.go`, kube-apiserver's `options.go`.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row("etcd", "etcd/server.crt", ReloadMode::NextHandshake),
    row("etcd", "etcd/server.key", ReloadMode::NextHandshake),
    row("etcd", "etcd/peer.crt", ReloadMode::NextHandshake),
    row("etcd", "etcd/peer.key", ReloadMode::NextHandshake),
    row("etcd", "etcd/ca.crt", ReloadMode::Restart),
    row("kube-apiserver", "apiserver.crt", ReloadMode::Reload(CONTENT_POLL)),
    row("kube-apiserver", "apiserver.key", ReloadMode::Reload(CONTENT_POLL)),
    row("kube-apiserver", "ca.crt", ReloadMode::Reload(CLIENT_POLL)),
    row("kube-apiserver", "front-proxy-ca.crt", ReloadMode::Reload(CONTENT_POLL)),
    row("kube-apiserver", "apiserver-kubelet-client.crt", ReloadMode::Reload(CLIENT_POLL)),
    row("kube-apiserver", "apiserver-kubelet-client.key", ReloadMode::Reload(CLIENT_POLL)),
    row("kube-apiserver", "front-proxy-client.crt", ReloadMode::Reload(CLIENT_POLL)),
    row("kube-apiserver", "front-proxy-client.key", ReloadMode::Reload(CLIENT_POLL)),
    row("kube-apiserver", "apiserver-etcd-client.crt", ReloadMode::NextHandshake),
    row("kube-apiserver", "apiserver-etcd-client.key", ReloadMode::NextHandshake),
    row("kube-apiserver", "etcd/ca.crt", ReloadMode::Restart),
    row("kube-apiserver", "sa.pub", ReloadMode::Restart),
    row("kube-apiserver", "sa.key", ReloadMode::Restart),
    row("kube-controller-manager", "cluster-signing-ca.crt", ReloadMode::Reload(CONTENT_POLL)),
    row("kube-controller-manager", "ca.key", ReloadMode::Reload(CONTENT_POLL)),
    row("kube-controller-manager", "front-proxy-ca.crt", ReloadMode::Reload(CONTENT_POLL)),
    // As --root-ca-file; as --client-ca-file it is reloaded.
    row("kube-controller-manager", "ca.crt", ReloadMode::Restart),
    row("kube-controller-manager", "sa.key", ReloadMode::Restart),
    row("kube-controller-manager", "controller-manager.conf", ReloadMode::Restart),
    row("kube-scheduler", "scheduler.conf", ReloadMode::Restart),
];

/// Returns whether a component with the layout `Systemd` reads the file at this path only when it starts.
#[must_use]
pub fn requires_restart(component: &str, path: &str) -> bool {
    let path_of = |file: &str| match file.strip_suffix(".conf") {
        Some(_) => places::kubeconfig(Layout::Systemd, file),
        None => places::pki_file(Layout::Systemd, file),
    };
    let mut rows = TABLE.iter().filter(|row| row.component == component && row.reload == ReloadMode::Restart);
    rows.any(|row| path_of(row.file) == path)
}

const API_SERVER: &str = "kube-apiserver";
/// The CA files with which the API server authenticates clients.
const CLIENT_CA_FILES: [&str; 2] = ["ca.crt", "front-proxy-ca.crt"];

/// Returns the annotation of a node's Secret and of a manifest that restarts the component.
#[must_use]
pub fn restart_annotation(component: &str) -> String {
    format!("{RESTART_CHECKSUM_PREFIX}{component}")
}

/// Returns the restart annotations for a node's Secret after a change of its files: one annotation for each component
/// that has to restart. `before` and `after` are the files by their keys.
#[must_use]
pub fn restart_annotations(
    before: &BTreeMap<String, &[u8]>,
    after: &BTreeMap<String, &[u8]>,
) -> BTreeMap<String, String> {
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in TABLE.iter().filter(|row| row.reload == ReloadMode::Restart) {
        files.entry(row.component).or_default().push(row.file.replace('/', "-"));
    }
    // The API server authenticates a connection only once. A watch or exec session opened with a certificate of a
    // revoked CA would last for hours, so the API server restarts.
    let cut = CLIENT_CA_FILES.iter().filter(|file| {
        before.get(**file).zip(after.get(**file)).is_some_and(|(before, after)| {
            let after = content(after);
            content(before).iter().filter(|block| !block.is_empty()).all(|block| !after.contains(block))
        })
    });
    files.entry(API_SERVER).or_default().extend(cut.map(|file| (*file).to_owned()));
    let changed = files.into_iter().filter(|(_, files)| {
        let differs = |file: &String| {
            before.get(file).zip(after.get(file)).is_some_and(|(before, after)| content(before) != content(after))
        };
        files.iter().any(differs)
    });
    changed
        .map(|(component, files)| {
            let content = files.iter().filter_map(|file| Some((file.as_str(), *after.get(file)?)));
            (restart_annotation(component), checksum(content))
        })
        .collect()
}

/// Returns the sorted blocks of a PEM file: the order of a bundle has no meaning.
fn content(file: &[u8]) -> Vec<&[u8]> {
    const END: &[u8] = b"-----END CERTIFICATE-----\n";
    let mut blocks = vec![];
    let mut rest = file;
    while let Some(at) = rest.windows(END.len()).position(|window| window == END) {
        let (block, after) = rest.split_at(at + END.len());
        blocks.push(block);
        rest = after;
    }
    blocks.push(rest);
    blocks.sort_unstable();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "-----BEGIN CERTIFICATE-----\nold\n-----END CERTIFICATE-----\n";
    const NEW: &str = "-----BEGIN CERTIFICATE-----\nnew\n-----END CERTIFICATE-----\n";

    fn data<'a>(files: &[(&str, &'a str)]) -> BTreeMap<String, &'a [u8]> {
        files.iter().map(|(key, text)| ((*key).to_owned(), text.as_bytes())).collect()
    }

    #[test]
    fn etcd_restart_annotation_matches_its_component() {
        assert_eq!(restart_annotation("etcd"), keyplane_crds::keys::ETCD_RESTART_ANNOTATION);
    }

    #[test]
    fn restarts_only_components_that_do_not_reload_a_changed_file() {
        let before = data(&[("etcd-ca.crt", "a"), ("sa.key", "a"), ("apiserver.crt", "a"), ("scheduler.conf", "a")]);
        assert!(restart_annotations(&before, &before).is_empty());
        assert!(restart_annotations(&data(&[]), &before).is_empty(), "a first Secret restarts nothing");
        let renewed = data(&[("etcd-ca.crt", "a"), ("sa.key", "a"), ("apiserver.crt", "b"), ("scheduler.conf", "a")]);
        assert!(restart_annotations(&before, &renewed).is_empty());
        let etcd = data(&[("etcd-ca.crt", "b"), ("sa.key", "a"), ("apiserver.crt", "a"), ("scheduler.conf", "a")]);
        let restarted = restart_annotations(&before, &etcd);
        assert_eq!(
            restarted.keys().collect::<Vec<_>>(),
            ["keyplane.io/restart-checksum.etcd", "keyplane.io/restart-checksum.kube-apiserver"]
        );
        let again = data(&[("etcd-ca.crt", "c"), ("sa.key", "a"), ("apiserver.crt", "a"), ("scheduler.conf", "a")]);
        assert_ne!(restart_annotations(&etcd, &again), restarted);
    }

    #[test]
    fn replaced_client_ca_restarts_the_api_server() {
        let both = format!("{OLD}{NEW}");
        let moved = |from: &str, to: &str| {
            let moved =
                restart_annotations(&data(&[("front-proxy-ca.crt", from)]), &data(&[("front-proxy-ca.crt", to)]));
            moved.into_keys().collect::<Vec<_>>()
        };
        assert!(moved(OLD, &both).is_empty() && moved(&both, NEW).is_empty());
        assert_eq!(moved(OLD, NEW), ["keyplane.io/restart-checksum.kube-apiserver"]);
    }
}
