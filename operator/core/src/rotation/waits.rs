//! What a stage waits for before the next one may begin.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::reload::CLIENT_POLL;
use super::{RotationFacts, Stage, Subject};
use crate::pki::AuthorityName;
use crate::pki::CertificateFacts;

/// How long machines hold new client certificates and bundles before anything may depend on that their components use
/// them: client-go's poll, and a little for clocks and for the poll itself.
pub const HOLD: Duration = CLIENT_POLL.saturating_add(Duration::from_secs(30));

/// An API server adds what it trusts to `extension-apiserver-authentication`, to what it last saw there: one that has just
/// taken up other files may still write what it saw before. It looks each minute.
const STAYS_CLEAN: Duration = Duration::from_mins(2);

/// All that a stage may wait for, beside the probes.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// The machines of the control plane, by name.
    pub nodes: Vec<&'a str>,
    /// What is being replaced, and what replaces it: certificates of authorities; nothing for a key.
    pub authorities: Option<(&'a CertificateFacts, &'a CertificateFacts)>,
    /// The identifiers of the key that is being replaced and the one that replaces it; nothing for an authority.
    pub keys: Option<(&'a str, &'a str)>,
    /// Whether servers bring along the new authority as the old one has signed it.
    pub is_cross_signed: bool,
    /// The bundle that belongs into the target.
    pub trust: &'a str,
    /// What the rollout of static pods waits for, if it is under way.
    pub rollout: Option<&'a str>,
    /// Which machines do not hold yet what is written for them, with what is to be done.
    pub machines: Vec<String>,
    /// Which kubelets do not have client certificates of the new authority yet, as far as agents tell.
    pub kubelet_clients: Vec<String>,
    /// Since when all machines hold it.
    pub held_since: Option<Timestamp>,
    /// Whether the old one may be taken away.
    pub may_complete: bool,
    /// What can't be seen and may depend on the old one.
    pub unseen: Vec<String>,
    /// Now.
    pub now: Timestamp,
}

/// What the stage waits for, each with the component and the machine; nothing if it is done.
#[must_use]
pub fn waits(subject: Subject, stage: Stage, at: &Circumstances<'_>, facts: &RotationFacts) -> Vec<String> {
    if stage == Stage::Gate {
        let what = || at.unseen.iter().cloned();
        return if at.may_complete { vec![] } else { what().collect() };
    }
    let mut waits = at.machines.clone();
    waits.extend(at.rollout.map(str::to_owned));
    match subject {
        Subject::Authority(name) => {
            if let Some((old, new)) = at.authorities {
                waits.extend(authority(name, stage, at, facts, old, new));
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

fn authority(
    name: AuthorityName,
    stage: Stage,
    at: &Circumstances<'_>,
    facts: &RotationFacts,
    old: &CertificateFacts,
    new: &CertificateFacts,
) -> Vec<String> {
    match stage {
        Stage::Trust => everywhere(name, at, facts, &new.fingerprint(), true),
        Stage::Clients if name != AuthorityName::Etcd => {
            let what = "the API servers to look at their client certificates and bundles again, which they do every five \
                        minutes";
            for_a_while(at, HOLD, what)
        }
        Stage::Kubelets if name == AuthorityName::Cluster => kubelets_present(at, facts, new),
        Stage::Servers => servers_present(name, at, facts, old, new),
        Stage::Drop | Stage::Revoke => {
            let mut waits = everywhere(name, at, facts, &old.fingerprint(), false);
            // Nothing has led up to it.
            if stage == Stage::Revoke {
                let mut more = servers_present(name, at, facts, old, new);
                more.extend(
                    (name == AuthorityName::Cluster).then(|| kubelets_present(at, facts, new)).into_iter().flatten(),
                );
                more.retain(|wait| !waits.contains(wait));
                waits.extend(more);
            }
            if name != AuthorityName::Etcd {
                let what = "API servers not to write the old authority into extension-apiserver-authentication again";
                waits.extend(for_a_while(at, STAYS_CLEAN, what));
            }
            waits
        }
        Stage::Clients | Stage::Signing | Stage::Kubelets | Stage::Gate => vec![],
    }
}

/// Whether every server takes clients of an authority, or none does; whether it is published everywhere, or nowhere.
fn everywhere(
    name: AuthorityName,
    at: &Circumstances<'_>,
    facts: &RotationFacts,
    authority: &str,
    wanted: bool,
) -> Vec<String> {
    let verb = if wanted { "take" } else { "refuse" };
    let which = if wanted { "new" } else { "old" };
    let judge = |what: String, accepts: Option<&bool>| match accepts {
        Some(found) if *found == wanted => None,
        Some(_) => Some(format!("{what} to {verb} clients of the {which} authority")),
        None => Some(format!("{what} to answer")),
    };
    let of_nodes = |component: &str, servers: &dyn Fn(&str) -> Option<bool>| -> Vec<String> {
        at.nodes.iter().filter_map(|node| judge(format!("{component} on {node}"), servers(node).as_ref())).collect()
    };
    let holds = |published: &Option<std::collections::BTreeSet<String>>, file: &str| {
        let held = published.as_ref().map(|found| found.contains(authority));
        let what = format!("{file} of ConfigMap kube-system/extension-apiserver-authentication");
        match held {
            Some(held) if held == wanted => None,
            Some(true) => Some(format!("the old authority to be taken out of {what}")),
            Some(false) => Some(format!("the new authority to be in {what}")),
            None => Some(format!("{what} to be read")),
        }
    };
    match name {
        AuthorityName::Etcd => of_nodes("etcd", &|node| facts.etcd.get(node)?.accepts.get(authority).copied()),
        AuthorityName::FrontProxy => {
            let mut waits = of_nodes("kube-apiserver", &|node| {
                facts.api_servers.get(node)?.accepts_front_proxy.get(authority).copied()
            });
            waits.extend(holds(&facts.front_proxy_authorities, "requestheader-client-ca-file"));
            waits
        }
        AuthorityName::Cluster => {
            let mut waits =
                of_nodes("kube-apiserver", &|node| facts.api_servers.get(node)?.accepts.get(authority).copied());
            match &facts.kubelets {
                None => waits.push("the list of Nodes".to_owned()),
                Some(kubelets) => waits.extend(kubelets.iter().filter_map(|(node, server)| {
                    judge(
                        format!("the kubelet of {node}"),
                        server.as_ref().and_then(|server| server.accepts.get(authority)),
                    )
                })),
            }
            match &facts.root_authorities {
                None => waits.push("ConfigMap kube-root-ca.crt of each namespace to be read".to_owned()),
                Some(namespaces) => {
                    let differing = namespaces.iter().find(|(_, held)| held.contains(authority) != wanted);
                    waits.extend(differing.map(|(namespace, _)| {
                        format!(
                            "kube-controller-manager to {} the {which} authority {} ConfigMap {namespace}/kube-root-ca.crt",
                            if wanted { "write" } else { "take" },
                            if wanted { "into" } else { "out of" },
                        )
                    }));
                }
            }
            waits.extend(holds(&facts.client_authorities, "client-ca-file"));
            if facts.prepared.as_deref() != Some(at.trust) {
                waits.push("cluster-info in the target to hold the bundle".to_owned());
            }
            waits
        }
    }
}

/// What only time shows: since every machine holds what the stage has written.
fn for_a_while(at: &Circumstances<'_>, time: Duration, what: &str) -> Vec<String> {
    let until = at.held_since.and_then(|since| since.checked_add(time).ok());
    match until {
        None => vec![what.to_owned()],
        Some(until) if until <= at.now => vec![],
        Some(until) => vec![format!("{what}: until {until}")],
    }
}

fn kubelets_present(at: &Circumstances<'_>, facts: &RotationFacts, new: &CertificateFacts) -> Vec<String> {
    let Some(kubelets) = &facts.kubelets else { return vec!["the list of Nodes".to_owned()] };
    let serving = kubelets.iter().filter_map(|(node, server)| match server {
        None => Some(format!("the kubelet of {node} to answer")),
        Some(server) if server.presents_one_of(new) => None,
        Some(_) => Some(format!("the kubelet of {node} to present a certificate of the new authority")),
    });
    serving.chain(at.kubelet_clients.iter().cloned()).collect()
}

fn servers_present(
    name: AuthorityName,
    at: &Circumstances<'_>,
    facts: &RotationFacts,
    old: &CertificateFacts,
    new: &CertificateFacts,
) -> Vec<String> {
    let brings_along =
        |server: &super::Server| server.presents.iter().skip(1).any(|certificate| certificate.is_signed_by(old));
    let (component, servers) = match name {
        AuthorityName::Cluster => ("kube-apiserver", &facts.api_servers),
        AuthorityName::Etcd => ("etcd", &facts.etcd),
        // Nothing is served with certificates below it.
        AuthorityName::FrontProxy => return vec![],
    };
    let node = |node: &&str| match servers.get(*node) {
        None => Some(format!("{component} on {node} to answer")),
        Some(server) if !server.presents_one_of(new) => {
            Some(format!("{component} on {node} to present a certificate of the new authority"))
        }
        Some(server) if at.is_cross_signed && !brings_along(server) => {
            Some(format!("{component} on {node} to bring along the new authority as the old one has signed it"))
        }
        Some(_) => None,
    };
    at.nodes.iter().filter_map(node).collect()
}

fn token_keys(stage: Stage, at: &Circumstances<'_>, facts: &RotationFacts, old: &str, new: &str) -> Vec<String> {
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
