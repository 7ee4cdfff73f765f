//! Who reads which file again by itself, and who has to be started anew for it (Kubernetes 1.36 and 1.37).
//!
//! A component that reads a file only when it starts is told so through its static pod: the checksum of those files, once
//! they have changed, is an annotation of the manifest, so that the kubelet makes the pod anew, in the order and with the
//! waits of every other change of a manifest.

use std::collections::BTreeMap;
use std::time::Duration;

use keyplane_crds::keys::RESTART_CHECKSUM_PREFIX;

use crate::checksum::checksum;

/// How a change of a file reaches a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uptake {
    /// It looks at the file again, at the latest after this time.
    Reload(Duration),
    /// The next handshake has it.
    NextHandshake,
    /// It has to be started anew.
    Restart,
}

/// A component and a file that it reads.
#[derive(Debug)]
pub struct Row {
    /// The component, by the name of its static pod.
    pub component: &'static str,
    /// The file: below kubeadm's `pki` directory, or a kubeconfig of `/etc/kubernetes`.
    pub file: &'static str,
    /// How a change reaches it.
    pub uptake: Uptake,
}

/// `dynamiccertificates` looks at its files when they change, and each minute.
const CONTENT_POLL: Duration = Duration::from_mins(1);
/// client-go looks at certificate files (`transport/cert_rotation.go`) and since 1.36 at files with authorities
/// (`transport/ca_rotation.go`) every five minutes.
pub const CLIENT_POLL: Duration = Duration::from_mins(5);

const fn row(component: &'static str, file: &'static str, uptake: Uptake) -> Row {
    Row { component, file, uptake }
}

/// Every file of the PKI that a component of the control plane reads. Sources: `k8s.io/apiserver` `dynamiccertificates`
/// and `storagebackend/factory/etcd3.go`, client-go `transport`, etcd `client/pkg/transport/listener.go`, the
/// controller-manager's `signer/ca_provider.go` and `app/certificates.go`, kube-apiserver's `options.go`.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row("etcd", "etcd/server.crt", Uptake::NextHandshake),
    row("etcd", "etcd/server.key", Uptake::NextHandshake),
    row("etcd", "etcd/peer.crt", Uptake::NextHandshake),
    row("etcd", "etcd/peer.key", Uptake::NextHandshake),
    row("etcd", "etcd/ca.crt", Uptake::Restart),
    row("kube-apiserver", "apiserver.crt", Uptake::Reload(CONTENT_POLL)),
    row("kube-apiserver", "apiserver.key", Uptake::Reload(CONTENT_POLL)),
    row("kube-apiserver", "ca.crt", Uptake::Reload(CLIENT_POLL)),
    row("kube-apiserver", "front-proxy-ca.crt", Uptake::Reload(CONTENT_POLL)),
    row("kube-apiserver", "apiserver-kubelet-client.crt", Uptake::Reload(CLIENT_POLL)),
    row("kube-apiserver", "apiserver-kubelet-client.key", Uptake::Reload(CLIENT_POLL)),
    row("kube-apiserver", "front-proxy-client.crt", Uptake::Reload(CLIENT_POLL)),
    row("kube-apiserver", "front-proxy-client.key", Uptake::Reload(CLIENT_POLL)),
    row("kube-apiserver", "apiserver-etcd-client.crt", Uptake::NextHandshake),
    row("kube-apiserver", "apiserver-etcd-client.key", Uptake::NextHandshake),
    row("kube-apiserver", "etcd/ca.crt", Uptake::Restart),
    row("kube-apiserver", "sa.pub", Uptake::Restart),
    row("kube-apiserver", "sa.key", Uptake::Restart),
    row("kube-controller-manager", "cluster-signing-ca.crt", Uptake::Reload(CONTENT_POLL)),
    row("kube-controller-manager", "ca.key", Uptake::Reload(CONTENT_POLL)),
    row("kube-controller-manager", "front-proxy-ca.crt", Uptake::Reload(CONTENT_POLL)),
    // As --root-ca-file; as --client-ca-file it is reloaded.
    row("kube-controller-manager", "ca.crt", Uptake::Restart),
    row("kube-controller-manager", "sa.key", Uptake::Restart),
    row("kube-controller-manager", "controller-manager.conf", Uptake::Restart),
    row("kube-scheduler", "scheduler.conf", Uptake::Restart),
];

const API_SERVER: &str = "kube-apiserver";
/// Whom the API server believes.
const AUTHORITIES: [&str; 2] = ["ca.crt", "front-proxy-ca.crt"];

/// The annotation of a machine's Secret and of a manifest that has the component started anew.
#[must_use]
pub fn mark_of(component: &str) -> String {
    format!("{RESTART_CHECKSUM_PREFIX}{component}")
}

/// The marks for a machine's Secret whose files are `after` and were `before`, by their keys: one for each component that
/// has to be started anew for what has changed.
#[must_use]
pub fn marks(before: &BTreeMap<String, &[u8]>, after: &BTreeMap<String, &[u8]>) -> BTreeMap<String, String> {
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in TABLE.iter().filter(|row| row.uptake == Uptake::Restart) {
        files.entry(row.component).or_default().push(row.file.replace('/', "-"));
    }
    // A connection that somebody has opened with a certificate of a revoked authority is not asked for it again: a watch
    // or an exec session would go on for hours.
    let cut = AUTHORITIES.iter().filter(|file| {
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
            (mark_of(component), checksum(content))
        })
        .collect()
}

/// The blocks of a PEM file, in any order: a bundle holds what it holds whichever comes first.
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
    fn etcds_mark_is_that_of_its_component() {
        assert_eq!(mark_of("etcd"), keyplane_crds::keys::ETCD_RESTART_ANNOTATION);
    }

    #[test]
    fn only_who_reads_a_changed_file_at_its_start_alone_is_started_anew() {
        let before = data(&[("etcd-ca.crt", "a"), ("sa.key", "a"), ("apiserver.crt", "a"), ("scheduler.conf", "a")]);
        assert!(marks(&before, &before).is_empty());
        assert!(marks(&data(&[]), &before).is_empty(), "a first Secret starts nothing anew");
        let renewed = data(&[("etcd-ca.crt", "a"), ("sa.key", "a"), ("apiserver.crt", "b"), ("scheduler.conf", "a")]);
        assert!(marks(&before, &renewed).is_empty());
        let etcd = data(&[("etcd-ca.crt", "b"), ("sa.key", "a"), ("apiserver.crt", "a"), ("scheduler.conf", "a")]);
        let restarted = marks(&before, &etcd);
        assert_eq!(
            restarted.keys().collect::<Vec<_>>(),
            ["keyplane.io/restart-checksum.etcd", "keyplane.io/restart-checksum.kube-apiserver"]
        );
        let again = data(&[("etcd-ca.crt", "c"), ("sa.key", "a"), ("apiserver.crt", "a"), ("scheduler.conf", "a")]);
        assert_ne!(marks(&etcd, &again), restarted);
    }

    #[test]
    fn of_an_authority_that_is_gone_without_a_passage_no_connection_stays_open() {
        let both = format!("{OLD}{NEW}");
        let moved = |from: &str, to: &str| {
            let moved = marks(&data(&[("front-proxy-ca.crt", from)]), &data(&[("front-proxy-ca.crt", to)]));
            moved.into_keys().collect::<Vec<_>>()
        };
        assert!(moved(OLD, &both).is_empty() && moved(&both, NEW).is_empty());
        assert_eq!(moved(OLD, NEW), ["keyplane.io/restart-checksum.kube-apiserver"]);
    }
}
