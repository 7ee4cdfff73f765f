//! All that is secret on a machine.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Layout, keys, reasons};
use kube::ResourceExt;

use super::given::GivenFile;
use super::signing::{Desk, Need, waits_for_signer};
use super::{Content, Draft, KeySource, Pair, Plan, PlannedLeaf, Source, Step, order};
use crate::authorities::Authorities;
use crate::blocker::Blocker;
use crate::checksum::checksum;
use crate::inventory::{Form, Leaf, leaves_of};
use crate::kubeconfig::{self, Credential, KUBELET_CLIENT_CURRENT};
use crate::model::{Cluster, Node, Window};
use crate::names;
use crate::objects;
use crate::objects::IndexEntry;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::LeafTerms;
use crate::pki::SecretText;
use crate::pki::places::{self, HARD_WAY_KUBELET_AUTHORITY, SIGNING_CERTIFICATE, pki_file};
use crate::pki::{CertificateFacts, CertificateOrder, PrivateKey, first_block, first_certificate, renewal};
use crate::rotation::Stage;

/// Mode of what everybody on the machine may read (kubeadm, `certutil.WriteCert`).
pub(super) const PUBLIC: u32 = 0o644;
/// Mode of what only root may read (kubeadm, `keyutil.WriteKey`).
pub(super) const PRIVATE: u32 = 0o600;

/// Plans a node's Secret.
pub(super) fn plan(
    cluster: &Cluster,
    node: &Node,
    authorities: &Authorities,
    given: &[GivenFile],
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
    if let Some(blocker) = found.and_then(|secret| other_authority(&name, secret, authorities)) {
        return plan.blockers.push(blocker);
    }
    let asked = Asked::of(cluster, found, now);
    // One of a revoked authority is of no use to its kubelet.
    let is_cut_off = authorities.cluster().stage() == Some(Stage::Revoke);
    let kubelets_own = !is_cut_off && kubelet_keeps_its_own(node, found, observed);
    let mut desk = Desk::open(cluster, Some(node), observed, now, plan);
    let mut leaves = vec![];
    let mut is_complete = true;
    for leaf in leaves_of(cluster, node) {
        let Some(issuer) = authorities.get(leaf.issuer).map(|set| set.issuer_of(leaf)) else { continue };
        let source = if kubelets_own && leaf.name == "kubelet.conf" {
            Some(Source::KubeletsOwn)
        } else {
            let need = need(cluster, node, leaf, found.and_then(|secret| stored_pair(secret, leaf)), now);
            desk.source(need, issuer, &asked, plan)
        };
        is_complete &= source.is_some();
        leaves.extend(source.map(|source| PlannedLeaf { leaf, source }));
    }
    desk.close(plan);
    if !is_complete {
        return plan.blockers.push(waits_for_signer(cluster, &name));
    }
    if let Some(found) = found
        && let Some(wanted) = compose_kept(cluster, node, authorities, given, &leaves)
        && found.data == wanted.data
        && objects::has_metadata(&found.metadata, &wanted.metadata)
    {
        return;
    }
    let content = Content::Node { node: node.name.clone(), leaves };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
}

/// The certificate that a machine needs.
pub(super) fn need<'a>(
    cluster: &Cluster,
    node: &Node,
    leaf: &'static Leaf,
    stored: Option<Pair>,
    now: Timestamp,
) -> Need<'a> {
    let terms = cluster.policy.leaf(leaf.name);
    let order = order(cluster, node, leaf, terms, now);
    Need { id: leaf.name.to_owned(), certificate: leaf.name, authority: leaf.issuer, order, terms, stored }
}

/// What decides whether certificates that serve are issued anew.
pub(super) struct Asked<'a> {
    now: Timestamp,
    window: Option<&'a Window>,
    anew: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn of(cluster: &'a Cluster, found: Option<&SecretObject>, now: Timestamp) -> Self {
        let anew = found.is_some_and(|secret| cluster.rotate.certificates().are_open(secret.annotations()));
        Self { now, window: cluster.policy.maintenance_window.as_ref(), anew }
    }

    /// The same without a maintenance window.
    pub(super) fn at_any_time(&self) -> Self {
        Self { window: None, ..*self }
    }

    /// Whether this is a time for work that can wait.
    pub(super) fn may_change(&self) -> bool {
        self.window.is_none_or(|window| window.is_open(self.now))
    }

    /// Why a certificate that serves is issued anew, if it is.
    fn reason(&self, facts: &CertificateFacts, key: &PrivateKey, terms: LeafTerms) -> Option<renewal::Reason> {
        if self.anew {
            return Some(renewal::Reason::Requested);
        }
        if key.algorithm() != Some(terms.key_algorithm) {
            return Some(renewal::Reason::KeyAlgorithmChanged);
        }
        let is_time = match renewal::urgency(facts, terms, self.now) {
            renewal::Urgency::NotDue => false,
            renewal::Urgency::Due => self.window.is_none_or(|window| window.is_open(self.now)),
            renewal::Urgency::Urgent => true,
        };
        is_time.then_some(renewal::Reason::RenewalDue)
    }
}

/// Whether the stored certificate is as ordered, or what to issue instead. A key that can be read stays, unless another
/// was asked for.
pub(super) fn source_of(
    certificate: &str,
    order: CertificateOrder,
    terms: LeafTerms,
    stored: Option<Pair>,
    issuer: &CertificateFacts,
    asked: &Asked<'_>,
) -> Source {
    let algorithm = terms.key_algorithm;
    let Some(pair) = stored else {
        return Source::Issue { order, key: KeySource::New(algorithm), reason: renewal::Reason::Missing };
    };
    let Ok(key) = PrivateKey::from_pem(certificate, &pair.key.0) else {
        return Source::Issue { order, key: KeySource::New(algorithm), reason: renewal::Reason::Unreadable };
    };
    let reason = match first_certificate(certificate, &pair.certificate) {
        Err(_) => Some(renewal::Reason::Unreadable),
        Ok(facts) => {
            // A certificate ends with its authority at the latest, and none begins after that.
            let lives_longer =
                order.not_before < issuer.not_after && order.not_after.min(issuer.not_after) > facts.not_after;
            let reason = renewal::check(&facts, &key, &order, issuer).or_else(|| asked.reason(&facts, &key, terms));
            reason.filter(|reason| *reason != renewal::Reason::RenewalDue || lives_longer)
        }
    };
    let Some(reason) = reason else { return Source::Keep(pair) };
    let stays = !asked.anew && key.algorithm() == Some(algorithm);
    let key = if stays { KeySource::Keep(pair.key) } else { KeySource::New(algorithm) };
    Source::Issue { order, key, reason }
}

/// The certificate and key of a leaf, as they lie in a node's Secret.
pub(super) fn stored_pair(secret: &SecretObject, leaf: &Leaf) -> Option<Pair> {
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

/// The node's Secret must come from the authorities that there are: otherwise somebody has put another authority in
/// place, and issuing from it would cut the machines off from each other.
fn other_authority(name: &str, secret: &SecretObject, authorities: &Authorities) -> Option<Blocker> {
    authorities.all().find_map(|(authority, loaded)| {
        let stored = objects::text(secret, &data_key(&format!("{}.crt", authority.file())))?;
        (!loaded.is_one_of(stored)).then(|| Blocker {
            reason: reasons::CA_CHANGED,
            message: format!(
                "Secret {name} was made with another authority {} than the one in its Secret now: put the former one \
                 back (Secret {name} has it, under {})",
                authority.name(),
                data_key(&format!("{}.crt", authority.file())),
            ),
        })
    })
}

/// As kubeadm: kubelet.conf embeds a first certificate, and refers to the kubelet's own file once the kubelet has one
/// (`kubeadm init phase kubelet-finalize`). A kubelet that has registered its Node has one.
fn kubelet_keeps_its_own(node: &Node, found: Option<&SecretObject>, observed: &Observed) -> bool {
    if let Some(nodes) = &observed.target.nodes {
        nodes.contains_key(&node.name)
    } else {
        let text = found.and_then(|secret| objects::text(secret, "kubelet.conf"));
        text.is_some_and(|text| text.contains(KUBELET_CLIENT_CURRENT))
    }
}

/// The Secret if nothing had to be issued.
fn compose_kept(
    cluster: &Cluster,
    node: &Node,
    authorities: &Authorities,
    given: &[GivenFile],
    leaves: &[PlannedLeaf],
) -> Option<SecretObject> {
    let mut pairs = BTreeMap::new();
    for planned in leaves {
        match &planned.source {
            Source::Keep(pair) => _ = pairs.insert(planned.leaf.name, pair.clone()),
            Source::KubeletsOwn => {}
            Source::Issue { .. } | Source::Take { .. } => return None,
        }
    }
    Some(compose(cluster, node, authorities, given, &pairs))
}

/// The Secret from its parts. A kubeconfig without a pair refers to the kubelet's own file.
#[must_use]
pub fn compose(
    cluster: &Cluster,
    node: &Node,
    authorities: &Authorities,
    given: &[GivenFile],
    pairs: &BTreeMap<&'static str, Pair>,
) -> SecretObject {
    let layout = cluster.layout();
    let mut files: Vec<(String, String, u32, String)> = vec![];
    let mut put = |file: &str, path: String, mode, content: &str| {
        files.push((data_key(file), path, mode, content.to_owned()));
    };
    let trust = &authorities.trust();
    if cluster.is_control_plane(node) {
        let mut put = |file: &str, mode, content: &str| put(file, pki_file(layout, file), mode, content);
        for (name, authority) in authorities.all() {
            put(&format!("{}.crt", name.file()), PUBLIC, &authority.file());
            if let Some(key) = authority.signing().key() {
                put(&format!("{}.key", name.file()), PRIVATE, key.pem());
            }
        }
        if authorities.cluster().signing().key().is_some() {
            put(SIGNING_CERTIFICATE, PUBLIC, first_block(authorities.cluster().signing().certificate_pem()));
        }
        put("sa.pub", public_key_mode(layout), authorities.service_account().public());
        put("sa.key", PRIVATE, authorities.service_account().signing().pem());
    }
    if layout == Layout::Systemd && cluster.has_kubelet(node) {
        put("ca.crt", HARD_WAY_KUBELET_AUTHORITY.to_owned(), PUBLIC, trust);
    }
    for leaf in leaves_of(cluster, node) {
        match (leaf.form, pairs.get(leaf.name), leaf.server(cluster, node)) {
            (Form::Pair { file }, Some(pair), _) => {
                let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
                let chain = authorities.get(leaf.issuer).map(|set| set.chain(leaf, &pair.certificate));
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
    let given = given.iter().filter(|_| cluster.is_control_plane(node));
    files.extend(given.map(|file| (file.key.to_owned(), file.path.clone(), file.mode, file.content.0.clone())));
    files.sort();
    let entries: Vec<_> = files.iter().map(|(key, path, mode, _)| IndexEntry::new(key, path, *mode)).collect();
    let mut data = BTreeMap::from([(names::INDEX_KEY.to_owned(), objects::index(&entries))]);
    data.extend(files.into_iter().map(|(key, _, _, content)| (key, content)));
    let bundles: Vec<_> = authorities.all().map(|(name, authority)| (name.name(), authority.bundle())).collect();
    let issuers = checksum(bundles.iter().map(|(name, bundle)| (*name, bundle.as_bytes())));
    let annotations =
        [(keys::NOT_AFTER_ANNOTATION, earliest_end(pairs.values())), (keys::ISSUER_CHECKSUM_ANNOTATION, issuers)];
    let name = names::node_secret(&cluster.name, &node.name);
    let mut secret = objects::secret(cluster, name, Some(node), "Opaque", data, annotations);
    secret.annotations_mut().extend(cluster.rotate.certificates().marks());
    secret.annotations_mut().extend(authorities.revoked_annotation());
    let pool = cluster.pool_of(node).map(|pool| (keys::NODE_POOL_LABEL.to_owned(), pool.to_owned()));
    secret.metadata.labels.get_or_insert_default().extend(pool);
    secret
}

/// kubeadm writes the service accounts' public key with a private key's mode (`keyutil.WriteKey`), the hard way with a
/// certificate's.
fn public_key_mode(layout: Layout) -> u32 {
    match layout {
        Layout::StaticPod => PRIVATE,
        Layout::Systemd => PUBLIC,
    }
}

/// The key of a file in a Secret: keys can't have slashes.
pub(super) fn data_key(file: &str) -> String {
    file.replace('/', "-")
}

/// The earliest end of a certificate, RFC 3339.
pub(super) fn earliest_end<'a>(pairs: impl Iterator<Item = &'a Pair>) -> String {
    pairs
        .filter_map(|pair| first_certificate("a certificate", &pair.certificate).ok())
        .map(|facts| facts.not_after)
        .min()
        .map(|end| end.to_string())
        .unwrap_or_default()
}
