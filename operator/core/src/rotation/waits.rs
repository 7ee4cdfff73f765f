//! The conditions that a stage waits for before the next one starts.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::reload::CLIENT_POLL;
use super::{RotationFacts, Stage, Subject};
use crate::pki::{CaName, CertificateFacts};

/// The time after which components use the new client certificates and bundles on their node: client-go's poll
/// interval, and a margin for clocks and for the poll itself.
pub const CLIENT_RELOAD_WAIT: Duration = CLIENT_POLL.saturating_add(Duration::from_secs(30));

/// The time for which the old CA must stay absent from `extension-apiserver-authentication`. An API server merges its
/// CAs into the content that it last saw. After a reload it may still write the old content. It reads the ConfigMap
/// every minute.
const AUTHENTICATION_CONFIG_SETTLE_TIME: Duration = Duration::from_mins(2);

/// The inputs of the wait conditions, in addition to the probes.
#[derive(Debug)]
pub struct StageInputs<'a> {
    /// The names of the control-plane nodes.
    pub nodes: Vec<&'a str>,
    /// The old and the new CA certificate; `None` for a key.
    pub cas: Option<(&'a CertificateFacts, &'a CertificateFacts)>,
    /// The identifiers of the old and the new key; `None` for a CA.
    pub keys: Option<(&'a str, &'a str)>,
    /// Whether server chains include the cross-signed certificate of the new CA.
    pub is_cross_signed: bool,
    /// The trust bundle for the target cluster.
    pub trust: &'a str,
    /// The condition that the rollout of static pods waits for, if it is in progress.
    pub rollout: Option<&'a str>,
    /// A message for each node that has not applied its files, with the remedy.
    pub outdated_nodes: Vec<String>,
    /// A message for each kubelet without a client certificate of the new CA, according to agent reports.
    pub kubelet_clients: Vec<String>,
    /// The time at which all nodes were observed to run the files of the stage.
    pub nodes_updated_since: Option<Timestamp>,
    /// Whether the completion is approved.
    pub may_complete: bool,
    /// The possible users of the old CA or key that can't be observed.
    pub unobservable_users: Vec<String>,
    /// The current time.
    pub now: Timestamp,
}

/// Returns the conditions that the stage waits for, each with the component and the node; none if the stage is done.
#[must_use]
pub fn waits(subject: Subject, stage: Stage, at: &StageInputs<'_>, facts: &RotationFacts) -> Vec<String> {
    if stage == Stage::Gate {
        let what = || at.unobservable_users.iter().cloned();
        return if at.may_complete { vec![] } else { what().collect() };
    }
    let mut waits = at.outdated_nodes.clone();
    waits.extend(at.rollout.map(str::to_owned));
    match subject {
        Subject::CertificateAuthority(name) => {
            if let Some((old, new)) = at.cas {
                waits.extend(ca_waits(name, stage, at, facts, old, new));
            }
        }
        Subject::ServiceAccountKey => {
            if let Some((old, new)) = at.keys {
                waits.extend(token_keys(stage, at, facts, old, new));
            }
        }
    }
    waits
}

fn ca_waits(
    name: CaName,
    stage: Stage,
    at: &StageInputs<'_>,
    facts: &RotationFacts,
    old: &CertificateFacts,
    new: &CertificateFacts,
) -> Vec<String> {
    match stage {
        Stage::Trust => acceptance_waits(name, at, facts, &new.fingerprint(), true),
        Stage::Clients if name != CaName::Etcd => {
            let what = "the API servers to reload their client certificates and bundles, which they do every five \
                        minutes";
            time_wait(at, CLIENT_RELOAD_WAIT, what)
        }
        Stage::Kubelets if name == CaName::Cluster => kubelets_present(at, facts, new),
        Stage::Servers => servers_present(name, at, facts, old, new),
        Stage::Drop | Stage::Revoke => {
            let mut waits = acceptance_waits(name, at, facts, &old.fingerprint(), false);
            // A revocation skips all previous stages, so their conditions are checked here.
            if stage == Stage::Revoke {
                let mut more = servers_present(name, at, facts, old, new);
                more.extend((name == CaName::Cluster).then(|| kubelets_present(at, facts, new)).into_iter().flatten());
                more.retain(|wait| !waits.contains(wait));
                waits.extend(more);
            }
            if name != CaName::Etcd {
                let what = "API servers not to write the old CA into extension-apiserver-authentication again";
                waits.extend(time_wait(at, AUTHENTICATION_CONFIG_SETTLE_TIME, what));
            }
            waits
        }
        Stage::Clients | Stage::Signing | Stage::Kubelets | Stage::Gate => vec![],
    }
}

/// Returns the servers that do not yet accept clients of a CA, and the places where the CA is not yet published.
/// Without `wanted`, returns the servers that still accept clients of the CA, and the places where the CA is still
/// published.
fn acceptance_waits(name: CaName, at: &StageInputs<'_>, facts: &RotationFacts, ca: &str, wanted: bool) -> Vec<String> {
    let verb = if wanted { "accept" } else { "reject" };
    let which = if wanted { "new" } else { "old" };
    let judge = |what: String, accepts: Option<&bool>| match accepts {
        Some(found) if *found == wanted => None,
        Some(_) => Some(format!("{what} to {verb} clients of the {which} CA")),
        None => Some(format!("{what} to answer")),
    };
    let of_nodes = |component: &str, servers: &dyn Fn(&str) -> Option<bool>| -> Vec<String> {
        at.nodes.iter().filter_map(|node| judge(format!("{component} on {node}"), servers(node).as_ref())).collect()
    };
    let holds = |published: &Option<std::collections::BTreeSet<String>>, file: &str| {
        let held = published.as_ref().map(|found| found.contains(ca));
        let what = format!("{file} of ConfigMap kube-system/extension-apiserver-authentication");
        match held {
            Some(held) if held == wanted => None,
            Some(true) => Some(format!("the old CA to be removed from {what}")),
            Some(false) => Some(format!("the new CA to be in {what}")),
            None => Some(format!("{what} to be read")),
        }
    };
    match name {
        CaName::Etcd => of_nodes("etcd", &|node| facts.etcd.get(node)?.accepts.get(ca).copied()),
        CaName::FrontProxy => {
            let mut waits =
                of_nodes("kube-apiserver", &|node| facts.api_servers.get(node)?.accepts_front_proxy.get(ca).copied());
            waits.extend(holds(&facts.front_proxy_cas, "requestheader-client-ca-file"));
            waits
        }
        CaName::Cluster => {
            let mut waits = of_nodes("kube-apiserver", &|node| facts.api_servers.get(node)?.accepts.get(ca).copied());
            match &facts.kubelets {
                None => waits.push("the list of Nodes".to_owned()),
                Some(kubelets) => waits.extend(kubelets.iter().filter_map(|(node, server)| {
                    judge(format!("the kubelet of {node}"), server.as_ref().and_then(|server| server.accepts.get(ca)))
                })),
            }
            match &facts.root_cas {
                None => waits.push("ConfigMap kube-root-ca.crt of each namespace to be read".to_owned()),
                Some(namespaces) => {
                    let differing = namespaces.iter().find(|(_, held)| held.contains(ca) != wanted);
                    waits.extend(differing.map(|(namespace, _)| {
                        format!(
                            "kube-controller-manager to {} the {which} CA {} ConfigMap {namespace}/kube-root-ca.crt",
                            if wanted { "write" } else { "remove" },
                            if wanted { "to" } else { "from" },
                        )
                    }));
                }
            }
            waits.extend(holds(&facts.client_cas, "client-ca-file"));
            if facts.prepared.as_deref() != Some(at.trust) {
                waits.push("cluster-info in the target cluster to contain the trust bundle".to_owned());
            }
            waits
        }
    }
}

/// Returns the wait condition for a change that can't be observed: the time since all nodes run the files of the stage.
fn time_wait(at: &StageInputs<'_>, time: Duration, what: &str) -> Vec<String> {
    let until = at.nodes_updated_since.and_then(|since| since.checked_add(time).ok());
    match until {
        None => vec![what.to_owned()],
        Some(until) if until <= at.now => vec![],
        Some(until) => vec![format!("{what}: until {until}")],
    }
}

fn kubelets_present(at: &StageInputs<'_>, facts: &RotationFacts, new: &CertificateFacts) -> Vec<String> {
    let Some(kubelets) = &facts.kubelets else { return vec!["the list of Nodes".to_owned()] };
    let serving = kubelets.iter().filter_map(|(node, server)| match server {
        None => Some(format!("the kubelet of {node} to answer")),
        Some(server) if server.presents_certificate_of(new) => None,
        Some(_) => Some(format!("the kubelet of {node} to present a certificate of the new CA")),
    });
    serving.chain(at.kubelet_clients.iter().cloned()).collect()
}

fn servers_present(
    name: CaName,
    at: &StageInputs<'_>,
    facts: &RotationFacts,
    old: &CertificateFacts,
    new: &CertificateFacts,
) -> Vec<String> {
    let is_cross_signed_chain =
        |server: &super::Server| server.presents.iter().skip(1).any(|certificate| certificate.is_signed_by(old));
    let (component, servers) = match name {
        CaName::Cluster => ("kube-apiserver", &facts.api_servers),
        CaName::Etcd => ("etcd", &facts.etcd),
        // The front-proxy CA issues no server certificates.
        CaName::FrontProxy => return vec![],
    };
    let node = |node: &&str| match servers.get(*node) {
        None => Some(format!("{component} on {node} to answer")),
        Some(server) if !server.presents_certificate_of(new) => {
            Some(format!("{component} on {node} to present a certificate of the new CA"))
        }
        Some(server) if at.is_cross_signed && !is_cross_signed_chain(server) => {
            Some(format!("{component} on {node} to present the cross-signed certificate of the new CA"))
        }
        Some(_) => None,
    };
    at.nodes.iter().filter_map(node).collect()
}

fn token_keys(stage: Stage, at: &StageInputs<'_>, facts: &RotationFacts, old: &str, new: &str) -> Vec<String> {
    let node = |node: &&str| {
        let Some(server) = facts.api_servers.get(*node) else {
            return Some(format!("kube-apiserver on {node} to answer"));
        };
        let (has_old, has_new) = (server.token_keys.contains(old), server.token_keys.contains(new));
        match stage {
            Stage::Drop | Stage::Revoke if has_old => {
                Some(format!("kube-apiserver on {node} to verify tokens without the old key"))
            }
            Stage::Trust | Stage::Signing | Stage::Revoke if !has_new => {
                Some(format!("kube-apiserver on {node} to verify tokens with the new key"))
            }
            _ => None,
        }
    };
    at.nodes.iter().filter_map(node).collect()
}

#[cfg(test)]
mod tests;
