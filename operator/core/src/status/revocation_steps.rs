//! Describes the consequences of a revocation before the user confirms it.

use std::collections::BTreeSet;

use crate::agent_access::machines::machines;
use crate::model::Cluster;
use crate::names;
use crate::observed::Observed;
use crate::pki::CaName;
use crate::rotation::Subject;
use keyplane_crds::keys;

const CA: Subject = Subject::CertificateAuthority(CaName::Cluster);
const ETCD: Subject = Subject::CertificateAuthority(CaName::Etcd);
const FRONT_PROXY: Subject = Subject::CertificateAuthority(CaName::FrontProxy);

/// The number of nodes that a message names.
const MAX_NAMED: usize = 12;

/// Returns the consequences, the interruptions and the user's tasks, in this order.
pub(crate) fn steps(cluster: &Cluster, observed: &Observed, subjects: &[Subject]) -> Vec<String> {
    let is = |subject: Subject| subjects.contains(&subject);
    let names = subjects.iter().map(|subject| subject.name()).collect::<Vec<_>>().join(", ");
    let mut steps = vec![format!(
        "at once: Keyplane generates new keys for {names}, reissues everything below them in the nodes' Secrets and \
         kubeconfigs, and removes the old ones from every trust bundle. The revocation can't be rolled back. Back up \
         the Secrets after it, and destroy the older backups"
    )];
    steps.extend(apply_steps(cluster, observed));
    steps.push(if is(CA) || is(ETCD) {
        "the API is unavailable until most control-plane nodes have applied their files and have restarted etcd and \
         the API server, all at the same time: about three minutes with agents; without agents until you have applied \
         the files. Pods keep running; etcd loses no data"
            .to_owned()
    } else {
        "API servers restart on all control-plane nodes at the same time: the API is unavailable for about a \
         minute. Pods keep running"
            .to_owned()
    });
    if is(CA) {
        steps.extend(kubelets(cluster, observed));
        steps.push(format!(
            "afterwards: copy the kubeconfigs {} again: every older copy is rejected, and so is every client \
             certificate that the cluster has issued. Other users of the CA (CI, monitoring) need the new one from \
             ConfigMap {}",
            kubeconfigs(cluster),
            names::trust_bundle_config_map(&cluster.name)
        ));
        steps.push(
            "afterwards: restart Pods that talk to the API and keep its CA in memory: those whose client is older \
             than client-go 1.36"
                .to_owned(),
        );
    }
    if is(ETCD) {
        steps.push(
            "afterwards: give other clients of etcd, such as backups, the new etcd/ca.crt and \
             etcd/healthcheck-client.crt of a control-plane node"
                .to_owned(),
        );
    }
    if is(FRONT_PROXY) {
        steps.push(
            "aggregated APIs, such as metrics, reject API servers until they have reloaded \
             extension-apiserver-authentication: within minutes, or restart them"
                .to_owned(),
        );
    }
    if is(Subject::ServiceAccountKey) {
        steps.push(
            "every service-account token is rejected: Pods that talk to the API fail until their kubelet has renewed \
             their token, which may take 50 minutes. Restart them (`kubectl rollout restart`), the Pod network, \
             CoreDNS and controllers first. Secrets of the type kubernetes.io/service-account-token, and tokens of \
             `kubectl create token`, have to be recreated"
                .to_owned(),
        );
    }
    steps.push(
        "a revocation does not undo changes that were made with the stolen key: look for unknown ClusterRoleBindings, \
         tokens, CSRs and Pods. Whoever could read one of these Secrets could read the others and the encryption key: \
         revoke them as well, and rotate spec.rotate.encryptionKey"
            .to_owned(),
    );
    steps
}

fn apply_steps(cluster: &Cluster, observed: &Observed) -> Vec<String> {
    let (with, without): (BTreeSet<_>, BTreeSet<_>) =
        machines(cluster, observed).into_iter().partition(|node| has_agent(observed, node));
    let mut steps = vec![];
    if !with.is_empty() {
        steps.push(format!("these nodes have an agent, which applies the new files within seconds: {}", named(&with)));
    }
    if !without.is_empty() {
        steps.push(format!(
            "these nodes have no agent: copy the files of their Secret and ConfigMap to them by hand, control plane \
             first, and confirm with the annotation {}; until then they are cut off: {}",
            keys::APPLIED_CHECKSUM_ANNOTATION,
            named(&without)
        ));
    }
    steps
}

fn kubelets(cluster: &Cluster, observed: &Observed) -> Vec<String> {
    let mut steps = vec![
        "kubelets are rejected until they have a new client certificate. An agent takes it from \
         the node's Secret, which exists for that time only; until then the Node is NotReady, and after five minutes \
         the controller-manager evicts its Pods: annotate DaemonSets or pause workloads if that would hurt"
            .to_owned(),
    ];
    let known = machines(cluster, observed);
    let by_hand: BTreeSet<_> = known.iter().filter(|node| !has_agent(observed, node)).cloned().collect();
    if !by_hand.is_empty() {
        steps.push(format!(
            "on these nodes you install the kubelet's new client certificate: copy kubelet.conf of Secret \
             {}-<node>-pki to its place, delete the links kubelet-client-current.pem and kubelet-server-current.pem in \
             /var/lib/kubelet/pki, and restart the kubelet: {}",
            cluster.name,
            named(&by_hand)
        ));
    }
    let nodes = observed.target.kubelets.keys();
    let unknown: BTreeSet<_> = nodes.filter(|node| !known.contains(*node)).cloned().collect();
    if !unknown.is_empty() {
        steps.push(format!(
            "these Nodes belong to no NodePool, so they have to join again: delete the Node, delete \
             /etc/kubernetes/kubelet.conf and /var/lib/kubelet/pki on the host, and run the join data of their pool: \
             {}",
            named(&unknown)
        ));
    }
    steps
}

fn kubeconfigs(cluster: &Cluster) -> String {
    let users = cluster.users.iter().map(|user| names::user_secret(&cluster.name, &user.name));
    let secrets: Vec<_> = std::iter::once(names::kubeconfig_secret(&cluster.name)).chain(users).collect();
    let more = secrets.len().saturating_sub(MAX_NAMED);
    let named = secrets.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn has_agent(observed: &Observed, node: &str) -> bool {
    observed.agents.get(node).is_some_and(|agent| agent.report.is_some())
}

fn named(machines: &BTreeSet<String>) -> String {
    let more = machines.len().saturating_sub(MAX_NAMED);
    let named = machines.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}
