//! What a revocation costs, in words, before it is confirmed.

use std::collections::BTreeSet;

use crate::agent_access::machines::machines;
use crate::model::Cluster;
use crate::names;
use crate::observed::Observed;
use crate::pki::AuthorityName;
use crate::rotation::Subject;
use keyplane_crds::keys;

const CA: Subject = Subject::Authority(AuthorityName::Cluster);
const ETCD: Subject = Subject::Authority(AuthorityName::Etcd);
const FRONT_PROXY: Subject = Subject::Authority(AuthorityName::FrontProxy);

/// So many machines are named.
const NAMED: usize = 12;

/// What happens, what stops, and what is left to do, in this order.
pub(super) fn steps(cluster: &Cluster, observed: &Observed, subjects: &[Subject]) -> Vec<String> {
    let is = |subject: Subject| subjects.contains(&subject);
    let names = subjects.iter().map(|subject| subject.name()).collect::<Vec<_>>().join(", ");
    let mut steps = vec![format!(
        "at once: new keys for {names}; everything below them is made anew, in the machines' Secrets and in kubeconfigs, and \
         the former ones are in no bundle any more. It can't be taken back. Back up the Secrets after it, and destroy the \
         backups from before"
    )];
    steps.extend(carrying(cluster, observed));
    steps.push(if is(CA) || is(ETCD) {
        "the API answers nothing from then on until most control-plane machines have their files and have started etcd and \
         the API server anew, all at the same time: about three minutes with agents, and without as long as you take. Pods \
         run on; nothing is lost in etcd"
            .to_owned()
    } else {
        "API servers are started anew on all control-plane machines at the same time: the API answers nothing for about a \
         minute. Pods run on"
            .to_owned()
    });
    if is(CA) {
        steps.extend(kubelets(cluster, observed));
        steps.push(format!(
            "afterwards: fetch {} again: every copy of a kubeconfig from before is refused; so is every client certificate \
             that was issued by the cluster. Who keeps the authority elsewhere (CI, monitoring) takes it from ConfigMap {}",
            kubeconfigs(cluster),
            names::trust_bundle_config_map(&cluster.name)
        ));
        steps.push(
            "afterwards: restart Pods that talk to the API and keep its authority in memory: those whose client is older \
             than client-go 1.36"
                .to_owned(),
        );
    }
    if is(ETCD) {
        steps.push(
            "afterwards: other clients of etcd, such as backups, take etcd/ca.crt and etcd/healthcheck-client.crt from a \
             control-plane machine"
                .to_owned(),
        );
    }
    if is(FRONT_PROXY) {
        steps.push(
            "aggregated APIs, such as metrics, refuse API servers until they have read extension-apiserver-authentication \
             again: within minutes, or restart them"
                .to_owned(),
        );
    }
    if is(Subject::ServiceAccountKey) {
        steps.push(
            "every token of a service account is refused: Pods that talk to the API fail until their kubelet has renewed \
             their token, which may take 50 minutes. Restart them (`kubectl rollout restart`), the Pod network, CoreDNS and \
             controllers first. Secrets of the type kubernetes.io/service-account-token, and tokens of `kubectl create \
             token`, have to be made anew"
                .to_owned(),
        );
    }
    steps.push(
        "it does not undo what was done with the stolen key: look for ClusterRoleBindings, tokens, CSRs and Pods that nobody \
         knows. Who could read one of these Secrets could read the others, and the encryption key: revoke them as well, and \
         rotate spec.rotate.encryptionKey"
            .to_owned(),
    );
    steps
}

fn carrying(cluster: &Cluster, observed: &Observed) -> Vec<String> {
    let (with, without): (BTreeSet<_>, BTreeSet<_>) =
        machines(cluster, observed).into_iter().partition(|node| has_agent(observed, node));
    let mut steps = vec![];
    if !with.is_empty() {
        steps.push(format!("these machines have an agent, which takes the new files within seconds: {}", named(&with)));
    }
    if !without.is_empty() {
        steps.push(format!(
            "these machines have no agent: carry their Secret and ConfigMap to them by hand, control plane first, and \
             acknowledge it with {}; until then they are cut off: {}",
            keys::APPLIED_CHECKSUM_ANNOTATION,
            named(&without)
        ));
    }
    steps
}

fn kubelets(cluster: &Cluster, observed: &Observed) -> Vec<String> {
    let mut steps = vec![
        "kubelets are refused until they have another client certificate. Where there is an agent it takes a new one from \
         the machine's Secret, which is there for that time only; until then the Node is NotReady, and after five minutes \
         the controller-manager evicts its Pods: annotate DaemonSets or pause workloads if that would hurt"
            .to_owned(),
    ];
    let known = machines(cluster, observed);
    let by_hand: BTreeSet<_> = known.iter().filter(|node| !has_agent(observed, node)).cloned().collect();
    if !by_hand.is_empty() {
        steps.push(format!(
            "on these machines you give the kubelet its new client certificate: put kubelet.conf of Secret \
             {}-<machine>-pki to its place, delete the links kubelet-client-current.pem and kubelet-server-current.pem in \
             /var/lib/kubelet/pki, and restart the kubelet: {}",
            cluster.name,
            named(&by_hand)
        ));
    }
    let nodes = observed.target.kubelets.keys();
    let unknown: BTreeSet<_> = nodes.filter(|node| !known.contains(*node)).cloned().collect();
    if !unknown.is_empty() {
        steps.push(format!(
            "these Nodes are in no list of machines, so they have to join again: delete the Node, delete \
             /etc/kubernetes/kubelet.conf and /var/lib/kubelet/pki there, and run the join data of their pool: {}",
            named(&unknown)
        ));
    }
    steps
}

fn kubeconfigs(cluster: &Cluster) -> String {
    let users = cluster.users.iter().map(|user| names::user_secret(&cluster.name, &user.name));
    let secrets: Vec<_> = std::iter::once(names::kubeconfig_secret(&cluster.name)).chain(users).collect();
    let more = secrets.len().saturating_sub(NAMED);
    let named = secrets.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn has_agent(observed: &Observed, node: &str) -> bool {
    observed.agents.get(node).is_some_and(|agent| agent.report.is_some())
}

fn named(machines: &BTreeSet<String>) -> String {
    let more = machines.len().saturating_sub(NAMED);
    let named = machines.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}
