//! The authorities and the service-account pair: what everything else is made from, and what is never made twice.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Layout, keys, reasons};

use super::{Content, Draft, Plan, Step, given_authorities, restore};
use crate::authorities::Authorities;
use crate::authorities::Loaded;
use crate::authorities::load_authority;
use crate::authorities::load_service_account;
use crate::blocker::Blocker;
use crate::model::{Cluster, Restore};
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::places::pki_file;
use crate::pki::{first_certificate, valid_for};

/// Plans them; gives them back once all are there.
pub(super) fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) -> Option<Authorities> {
    let mut authorities = BTreeMap::new();
    let mut given = given_authorities::given(cluster, observed, now);
    for name in cluster.authority_names() {
        let (not_before, not_after) = valid_for(now, cluster.policy.authority_validity);
        let algorithm = cluster.policy.authority_key_algorithm;
        let content = match given.remove(&name) {
            None => Ok(Content::Authority { name, algorithm, not_before, not_after }),
            Some(given) => given.map(|authority| Content::GivenAuthority { name, authority: Box::new(authority) }),
        };
        let loaded = load_authority(cluster, name, observed);
        let secret = names::authority_secret(&cluster.name, name);
        authorities.insert(name, there_or_planned(loaded, cluster, observed, secret, content, plan));
    }
    let content = Ok(Content::ServiceAccountKey { algorithm: cluster.policy.default_leaf().key_algorithm });
    let loaded = load_service_account(cluster, observed);
    let secret = names::service_account_secret(&cluster.name);
    let service_account = there_or_planned(loaded, cluster, observed, secret, content, plan);
    Authorities::from_loaded(cluster, authorities, service_account)
}

/// What is there; what is missing is planned, and what is in the way is told.
fn there_or_planned<T>(
    loaded: Loaded<T>,
    cluster: &Cluster,
    observed: &Observed,
    secret: String,
    content: Result<Content, Blocker>,
    plan: &mut Plan,
) -> Option<T> {
    match (loaded, content) {
        (Loaded::There(loaded), _) => return Some(loaded),
        (Loaded::Blocked(blocker), _) | (Loaded::Missing, Err(blocker)) => plan.blockers.push(blocker),
        (Loaded::Missing, Ok(content)) => mint(cluster, observed, secret, content, plan),
    }
    None
}

/// Makes a key, unless there are signs that it was there before: then a new one would cut every machine off, and only
/// a person can know whether that is wanted.
fn mint(cluster: &Cluster, observed: &Observed, secret: String, content: Content, plan: &mut Plan) {
    if cluster.restore == Restore::Expected {
        // What is planned is held: a trace is no reason for more words.
        return plan.steps.push(Step::Secret(Box::new(Draft { name: secret, content })));
    }
    let nodes = cluster.nodes.iter().map(|node| names::node_secret(&cluster.name, &node.name));
    let traces = nodes.chain([names::kubeconfig_secret(&cluster.name)]);
    let trace = traces.filter(|name| matches!(observed.secret(&cluster.name, name), Slot::Ours(_))).min();
    // The status lists certificates only once all authorities were there.
    let known = !observed.status.certificates.is_empty();
    let is_back = trace.as_ref().is_some_and(|trace| is_a_copy(observed, trace, &content));
    if trace.is_none() && !known || is_back {
        if !is_back && let Some(blocker) = restore::is_elsewhere(cluster, observed, &secret) {
            return plan.blockers.push(blocker);
        }
        plan.steps.push(Step::Secret(Box::new(Draft { name: secret, content })));
        return;
    }
    let copy = match &trace {
        Some(trace) if trace.ends_with("-pki") => format!("Secret {trace} still has a copy of it, under "),
        _ => "a control-plane machine still has a copy of it, in ".to_owned(),
    };
    let layout = cluster.layout();
    let (certificate_key, private_key) = copies(layout, &content, trace.is_some_and(|trace| trace.ends_with("-pki")));
    plan.blockers.push(Blocker {
        reason: reasons::CA_MISSING,
        message: format!(
            "Secret {secret} is gone, and the cluster lives on what it held, so no new one is made: restore it from a \
             backup with its labels ({copy}{certificate_key} and {private_key}); if the cluster is not in use, delete \
             this ClusterSpec with its Secrets and make it again"
        ),
    });
}

/// Whether what is given is what the machine has.
fn is_a_copy(observed: &Observed, node_secret: &str, content: &Content) -> bool {
    let Content::GivenAuthority { name, authority } = content else { return false };
    let key = format!("{}.crt", name.file().replace('/', "-"));
    let copy = observed.secrets.get(node_secret).and_then(|secret| objects::text(secret, &key));
    let copy = copy.and_then(|copy| first_certificate(node_secret, copy).ok());
    copy.is_some_and(|copy| authority.facts().is_renewal_of(&copy))
}

/// Where the certificate (or public key) and the private key lie on a node: as key in the node's Secret, or as path.
fn copies(layout: Layout, content: &Content, in_secret: bool) -> (String, String) {
    let file = match content {
        Content::Authority { name, .. } | Content::GivenAuthority { name, .. } => name.file(),
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
