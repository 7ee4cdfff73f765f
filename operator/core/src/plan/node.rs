//! Plans the Secret of each node: the certificates, keys and kubeconfigs on that node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Layout, keys, reasons};
use kube::ResourceExt;

use super::external_signing::{CsrBatch, Need, waits_for_signer};
use super::leaf_source::RenewalInputs;
use super::secret_file::{PRIVATE, PUBLIC, UserProvidedFile};
use super::{Content, Draft, Pair, Plan, PlannedLeaf, Source, Step, order};
use crate::blocker::Blocker;
use crate::certificate_authorities::ClusterCas;
use crate::checksum::checksum;
use crate::inventory::{Form, Leaf, leaves_of};
use crate::kubeconfig::{self, Credential, KUBELET_CLIENT_CURRENT};
use crate::model::{Cluster, Node};
use crate::names;
use crate::objects::{self, IndexEntry};
use crate::observed::{Observed, Slot};
use crate::pki::places::{self, HARD_WAY_KUBELET_CA, SIGNING_CERTIFICATE, pki_file};
use crate::pki::{SecretText, first_block, first_certificate};
use crate::rotation::Stage;

/// Plans a node's Secret.
pub(crate) fn plan(
    cluster: &Cluster,
    node: &Node,
    cas: &ClusterCas,
    user_provided: &[UserProvidedFile],
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    let name = names::node_secret(&cluster.name, &node.name);
    let found = match observed.secret(&cluster.name, &name) {
        Slot::Foreign(blocker) => return plan.blockers.push(blocker),
        Slot::Free => None,
        Slot::Ours(secret) => Some(secret),
    };
    if let Some(blocker) = found.and_then(|secret| replaced_ca(&name, secret, cas)) {
        return plan.blockers.push(blocker);
    }
    let inputs = RenewalInputs::of(cluster, found, now);
    // A certificate of a revoked CA is of no use to the kubelet.
    let is_cut_off = cas.cluster().stage() == Some(Stage::Revoke);
    let kubelets_own = !is_cut_off && kubelet_keeps_its_own(node, found, observed);
    let mut csr_batch = CsrBatch::open(cluster, Some(node), observed, now, plan);
    let mut leaves = vec![];
    let mut is_complete = true;
    for leaf in leaves_of(cluster, node) {
        let Some(issuer) = cas.get(leaf.issuer).map(|set| set.issuer_of(leaf)) else { continue };
        let source = if kubelets_own && leaf.name == "kubelet.conf" {
            Some(Source::KubeletManaged)
        } else {
            let need = need(cluster, node, leaf, found.and_then(|secret| stored_pair(secret, leaf)), now);
            csr_batch.source(need, issuer, &inputs, plan)
        };
        is_complete &= source.is_some();
        leaves.extend(source.map(|source| PlannedLeaf { leaf, source }));
    }
    csr_batch.close(plan);
    if !is_complete {
        return plan.blockers.push(waits_for_signer(cluster, &name));
    }
    if let Some(found) = found
        && let Some(wanted) = compose_kept(cluster, node, cas, user_provided, &leaves)
        && found.data == wanted.data
        && objects::has_metadata(&found.metadata, &wanted.metadata)
    {
        return;
    }
    let content = Content::Node { node: node.name.clone(), leaves };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
}

/// Returns the required certificate of a node.
pub(crate) fn need<'a>(
    cluster: &Cluster,
    node: &Node,
    leaf: &'static Leaf,
    stored: Option<Pair>,
    now: Timestamp,
) -> Need<'a> {
    let terms = cluster.policy.leaf(leaf.name);
    let order = order(cluster, node, leaf, terms, now);
    Need { id: leaf.name.to_owned(), certificate: leaf.name, ca: leaf.issuer, order, terms, stored }
}

/// Returns the certificate and key of a leaf that are stored in a node's Secret.
pub(crate) fn stored_pair(secret: &SecretObject, leaf: &Leaf) -> Option<Pair> {
    match leaf.form {
        Form::Pair { file } => Some(Pair {
            certificate: objects::text(secret, &data_key(&format!("{file}.crt")))?.to_owned(),
            key: SecretText(objects::text(secret, &data_key(&format!("{file}.key")))?.to_owned()),
        }),
        Form::Kubeconfig { file, .. } => {
            let (certificate, key) = kubeconfig::embedded_credential(objects::text(secret, file)?)?;
            Some(Pair { certificate, key: SecretText(key) })
        }
    }
}

/// Returns a blocker if the node's Secret contains a CA other than the current one. Then somebody has replaced the CA's
/// Secret, and certificates of the other CA would cut the nodes off from each other.
fn replaced_ca(name: &str, secret: &SecretObject, cas: &ClusterCas) -> Option<Blocker> {
    cas.all().find_map(|(ca, loaded)| {
        let stored = objects::text(secret, &data_key(&format!("{}.crt", ca.file())))?;
        (!loaded.is_one_of(stored)).then(|| Blocker {
            reason: reasons::CA_CHANGED,
            message: format!(
                "Secret {name} was issued by a CA {} that differs from the one in the CA's Secret now: restore the \
                 previous CA (Secret {name} has its certificate, under {})",
                ca.name(),
                data_key(&format!("{}.crt", ca.file())),
            ),
        })
    })
}

/// Returns whether the kubelet manages its own certificate. As in kubeadm, kubelet.conf embeds a first certificate, and
/// refers to the kubelet's own file once the kubelet has one (`kubeadm init phase kubelet-finalize`). A kubelet that
/// has registered its Node has one.
fn kubelet_keeps_its_own(node: &Node, found: Option<&SecretObject>, observed: &Observed) -> bool {
    if let Some(nodes) = &observed.target.nodes {
        nodes.contains_key(&node.name)
    } else {
        let text = found.and_then(|secret| objects::text(secret, "kubelet.conf"));
        text.is_some_and(|text| text.contains(KUBELET_CLIENT_CURRENT))
    }
}

/// Composes the Secret from kept certificates only; `None` if a certificate has to be issued.
fn compose_kept(
    cluster: &Cluster,
    node: &Node,
    cas: &ClusterCas,
    user_provided: &[UserProvidedFile],
    leaves: &[PlannedLeaf],
) -> Option<SecretObject> {
    let mut pairs = BTreeMap::new();
    for planned in leaves {
        match &planned.source {
            Source::Keep(pair) => _ = pairs.insert(planned.leaf.name, pair.clone()),
            Source::KubeletManaged => {}
            Source::Issue { .. } | Source::Signed { .. } => return None,
        }
    }
    Some(compose(cluster, node, cas, user_provided, &pairs))
}

/// Composes the Secret. A kubeconfig without a pair refers to the kubelet's own file.
#[must_use]
pub fn compose(
    cluster: &Cluster,
    node: &Node,
    cas: &ClusterCas,
    user_provided: &[UserProvidedFile],
    pairs: &BTreeMap<&'static str, Pair>,
) -> SecretObject {
    let layout = cluster.layout();
    let mut files: Vec<(String, String, u32, String)> = vec![];
    let mut put = |file: &str, path: String, mode, content: &str| {
        files.push((data_key(file), path, mode, content.to_owned()));
    };
    let trust = &cas.trust();
    if cluster.is_control_plane(node) {
        let mut put = |file: &str, mode, content: &str| put(file, pki_file(layout, file), mode, content);
        for (name, ca) in cas.all() {
            put(&format!("{}.crt", name.file()), PUBLIC, &ca.file());
            if let Some(key) = ca.signing().key() {
                put(&format!("{}.key", name.file()), PRIVATE, key.pem());
            }
        }
        if cas.cluster().signing().key().is_some() {
            put(SIGNING_CERTIFICATE, PUBLIC, first_block(cas.cluster().signing().certificate_pem()));
        }
        put("sa.pub", public_key_mode(layout), cas.service_account().public());
        put("sa.key", PRIVATE, cas.service_account().signing().pem());
    }
    if layout == Layout::Systemd && cluster.has_kubelet(node) {
        put("ca.crt", HARD_WAY_KUBELET_CA.to_owned(), PUBLIC, trust);
    }
    for leaf in leaves_of(cluster, node) {
        match (leaf.form, pairs.get(leaf.name), leaf.server(cluster, node)) {
            (Form::Pair { file }, Some(pair), _) => {
                let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
                let chain = cas.get(leaf.issuer).map(|set| set.chain(leaf, &pair.certificate));
                let chained = format!("{}{}", first_block(&pair.certificate), chain.unwrap_or_default());
                put(&certificate, pki_file(layout, &certificate), PUBLIC, &chained);
                put(&key, pki_file(layout, &key), PRIVATE, &pair.key.0);
            }
            (Form::Kubeconfig { file, .. }, pair, Some(server)) => {
                let credential = match pair {
                    Some(pair) => Credential::Embedded { certificate: &pair.certificate, key: &pair.key.0 },
                    None => Credential::File(KUBELET_CLIENT_CURRENT),
                };
                let user = leaf.subject(node).common_name;
                let text = kubeconfig::write(&server, trust, &user, credential);
                put(file, places::kubeconfig(layout, file), PRIVATE, &text);
            }
            (Form::Pair { .. }, None, _) | (Form::Kubeconfig { .. }, _, None) => {}
        }
    }
    let user_provided = user_provided.iter().filter(|_| cluster.is_control_plane(node));
    files.extend(user_provided.map(|file| (file.key.to_owned(), file.path.clone(), file.mode, file.content.0.clone())));
    files.sort();
    let entries: Vec<_> = files.iter().map(|(key, path, mode, _)| IndexEntry::new(key, path, *mode)).collect();
    let mut data = BTreeMap::from([(names::INDEX_KEY.to_owned(), objects::index(&entries))]);
    data.extend(files.into_iter().map(|(key, _, _, content)| (key, content)));
    let bundles: Vec<_> = cas.all().map(|(name, ca)| (name.name(), ca.bundle())).collect();
    let issuers = checksum(bundles.iter().map(|(name, bundle)| (*name, bundle.as_bytes())));
    let annotations =
        [(keys::NOT_AFTER_ANNOTATION, earliest_end(pairs.values())), (keys::ISSUER_CHECKSUM_ANNOTATION, issuers)];
    let name = names::node_secret(&cluster.name, &node.name);
    let mut secret = objects::secret(cluster, name, Some(node), "Opaque", data, annotations);
    secret.annotations_mut().extend(cluster.rotate.certificates().answer_annotations());
    secret.annotations_mut().extend(cas.revoked_annotation());
    let pool = cluster.pool_of(node).map(|pool| (keys::NODE_POOL_LABEL.to_owned(), pool.to_owned()));
    secret.metadata.labels.get_or_insert_default().extend(pool);
    secret
}

/// Returns the mode of the service-account public key. kubeadm uses the mode of a private key (`keyutil.WriteKey`),
/// Kubernetes the Hard Way that of a certificate.
fn public_key_mode(layout: Layout) -> u32 {
    match layout {
        Layout::StaticPod => PRIVATE,
        Layout::Systemd => PUBLIC,
    }
}

/// Returns the key of a file in a Secret. Keys can't contain slashes.
pub(crate) fn data_key(file: &str) -> String {
    file.replace('/', "-")
}

/// Returns the earliest expiry of the certificates, in RFC 3339.
pub(crate) fn earliest_end<'a>(pairs: impl Iterator<Item = &'a Pair>) -> String {
    pairs
        .filter_map(|pair| first_certificate("a certificate", &pair.certificate).ok())
        .map(|facts| facts.not_after)
        .min()
        .map(|end| end.to_string())
        .unwrap_or_default()
}
