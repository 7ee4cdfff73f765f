//! Plans the CAs and the service-account key pair. Everything else is issued from them, so Keyplane never generates one
//! of them twice.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Layout, reasons};

use super::{Content, Draft, Plan, Step, restore, user_provided_cas};
use crate::blocker::Blocker;
use crate::certificate_authorities::{ClusterCas, Loaded, load_ca, load_service_account};
use crate::model::{Cluster, Restore};
use crate::observed::{Observed, Slot};
use crate::pki::places::pki_file;
use crate::pki::{first_certificate, valid_for};
use crate::{names, objects};

/// Plans the missing CAs and keys. Returns the CAs once all of them exist.
pub(crate) fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) -> Option<ClusterCas> {
    let mut cas = BTreeMap::new();
    let mut user_provided = user_provided_cas::read_all(cluster, observed, now);
    for name in cluster.ca_names() {
        let (not_before, not_after) = valid_for(now, cluster.policy.ca_validity);
        let algorithm = cluster.policy.ca_key_algorithm;
        let content = match user_provided.remove(&name) {
            None => Ok(Content::CertificateAuthority { name, algorithm, not_before, not_after }),
            Some(user_provided) => user_provided.map(|ca| Content::UserProvidedCa { name, ca: Box::new(ca) }),
        };
        let loaded = load_ca(cluster, name, observed);
        let secret = names::ca_secret(&cluster.name, name);
        cas.insert(name, loaded_or_planned(loaded, cluster, observed, secret, content, plan));
    }
    let content = Ok(Content::ServiceAccountKey { algorithm: cluster.policy.default_leaf().key_algorithm });
    let loaded = load_service_account(cluster, observed);
    let secret = names::service_account_secret(&cluster.name);
    let service_account = loaded_or_planned(loaded, cluster, observed, secret, content, plan);
    ClusterCas::from_loaded(cluster, cas, service_account)
}

/// Returns the loaded object. A missing one is planned, and a blocker is added to the plan.
fn loaded_or_planned<T>(
    loaded: Loaded<T>,
    cluster: &Cluster,
    observed: &Observed,
    secret: String,
    content: Result<Content, Blocker>,
    plan: &mut Plan,
) -> Option<T> {
    match (loaded, content) {
        (Loaded::Present(loaded), _) => return Some(loaded),
        (Loaded::Blocked(blocker), _) | (Loaded::Missing, Err(blocker)) => plan.blockers.push(blocker),
        (Loaded::Missing, Ok(content)) => plan_key(cluster, observed, secret, content, plan),
    }
    None
}

/// Plans a new key unless there are signs that the key existed before. A new key would then cut off every node, and
/// only the user can decide that.
fn plan_key(cluster: &Cluster, observed: &Observed, secret: String, content: Content, plan: &mut Plan) {
    if cluster.restore == Restore::Expected {
        // `restore::remove_missing` reports the missing object, so a second blocker is not needed.
        return plan.steps.push(Step::Secret(Box::new(Draft { name: secret, content })));
    }
    let nodes = cluster.nodes.iter().map(|node| names::node_secret(&cluster.name, &node.name));
    let traces = nodes.chain([names::kubeconfig_secret(&cluster.name)]);
    let trace = traces.filter(|name| matches!(observed.secret(&cluster.name, name), Slot::Ours(_))).min();
    // The status lists certificates only after all CAs existed.
    let known = !observed.status.certificates.is_empty();
    let is_back = trace.as_ref().is_some_and(|trace| is_a_copy(observed, trace, &content));
    if trace.is_none() && !known || is_back {
        if !is_back && let Some(blocker) = restore::exists_elsewhere(cluster, observed, &secret) {
            return plan.blockers.push(blocker);
        }
        plan.steps.push(Step::Secret(Box::new(Draft { name: secret, content })));
        return;
    }
    let copy = match &trace {
        Some(trace) if trace.ends_with("-pki") => format!("Secret {trace} still has a copy, under "),
        _ => "a control-plane node still has a copy, in ".to_owned(),
    };
    let layout = cluster.layout();
    let (certificate_key, private_key) = copies(layout, &content, trace.is_some_and(|trace| trace.ends_with("-pki")));
    plan.blockers.push(Blocker {
        reason: reasons::CA_MISSING,
        message: format!(
            "Secret {secret} is missing, and the cluster depends on its content, so Keyplane generates no new one: \
             restore it from a backup with its labels ({copy}{certificate_key} and {private_key}); if the cluster is \
             not in use, delete this ClusterSpec with its Secrets and create it again"
        ),
    });
}

/// Returns whether the user-provided CA is the CA that the node's Secret contains.
fn is_a_copy(observed: &Observed, node_secret: &str, content: &Content) -> bool {
    let Content::UserProvidedCa { name, ca } = content else { return false };
    let key = format!("{}.crt", name.file().replace('/', "-"));
    let copy = observed.secrets.get(node_secret).and_then(|secret| objects::text(secret, &key));
    let copy = copy.and_then(|copy| first_certificate(node_secret, copy).ok());
    copy.is_some_and(|copy| ca.facts().is_renewal_of(&copy))
}

/// Returns the location of the certificate (or public key) and of the private key on a node: as key in the node's
/// Secret, or as path.
fn copies(layout: Layout, content: &Content, in_secret: bool) -> (String, String) {
    let file = match content {
        Content::CertificateAuthority { name, .. } | Content::UserProvidedCa { name, .. } => name.file(),
        _ => "sa",
    };
    let ending = if file == "sa" { "pub" } else { "crt" };
    if in_secret {
        let key = file.replace('/', "-");
        (format!("{key}.{ending}"), format!("{key}.key"))
    } else {
        let path = |ending| pki_file(layout, &format!("{file}.{ending}"));
        (path(ending), path("key"))
    }
}
