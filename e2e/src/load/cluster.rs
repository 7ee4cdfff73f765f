//! What the cluster says of itself: kubelets' heartbeats, and whether a workload's pod was restarted or replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::asking::Asking;
use super::kubeconfig::OwnersKubeconfig;
use super::spared::Spared;
use super::tally::Tally;

/// Names in the table.
pub(super) const HEARTBEATS: &str = "kubelets' heartbeats";
pub(super) const PODS: &str = "workload pods";

/// How often all of it is looked at.
const PAUSE: Duration = Duration::from_secs(5);

/// After so long without a heartbeat the controller-manager takes a Node for lost (`--node-monitor-grace-period`, 50 s
/// since 1.32). Kubelets renew every 10 s, and those of the control plane only while the API server of their own machine
/// runs.
const OLDEST_HEARTBEAT: Duration = Duration::from_secs(50);

const NODES_PATH: &str = "/api/v1/nodes";
const LEASES_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Static pods are what is rotated; they have this label.
const PODS_PATH: &str = "/api/v1/pods?labelSelector=tier!%3Dcontrol-plane";

/// Looks for ever.
pub(super) async fn run(kubeconfig: OwnersKubeconfig, tally: Tally, spared: Spared) {
    let mut asking = Asking::new(HEARTBEATS, &tally, 1, move || kubeconfig.access());
    let mut pods = Pods::default();
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match (list(&mut asking, NODES_PATH).await, list(&mut asking, LEASES_PATH).await) {
            (Ok(nodes), Ok(leases)) => {
                let is_spared = |node: &&Value| node["metadata"]["name"].as_str().is_some_and(|name| spared.has(name));
                let expected: Vec<_> = nodes.iter().filter(|node| !is_spared(node)).cloned().collect();
                for complaint in judge_heartbeats(&expected, &leases, Timestamp::now()) {
                    match complaint {
                        Ok(age) => tally.answered_after(HEARTBEATS, age),
                        Err(words) => tally.failed(HEARTBEATS, &words),
                    }
                }
            }
            (Err(error), _) | (_, Err(error)) => tally.failed(HEARTBEATS, &format!("{error:#}")),
        }
        match list(&mut asking, PODS_PATH).await {
            Ok(list) => {
                let complaints = pods.judge(&list, &spared);
                if complaints.is_empty() {
                    tally.answered(PODS);
                }
                for words in complaints {
                    tally.failed(PODS, &words);
                }
            }
            Err(error) => tally.failed(PODS, &format!("{error:#}")),
        }
    }
}

async fn list(asking: &mut Asking, path: &str) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_slice(&asking.uncounted(path).await?)?;
    Ok(list["items"].as_array().with_context(|| format!("{path} is no list"))?.clone())
}

/// For each Node how old its last heartbeat is, or what is wrong with it.
fn judge_heartbeats(nodes: &[Value], leases: &[Value], now: Timestamp) -> Vec<Result<Duration, String>> {
    let renewed: BTreeMap<_, Timestamp> = leases
        .iter()
        .filter_map(|lease| {
            let time = lease["spec"]["renewTime"].as_str()?.parse().ok()?;
            Some((lease["metadata"]["name"].as_str()?, time))
        })
        .collect();
    let judge = |node: &Value| {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        if ready.is_none_or(|ready| ready["status"] != "True") {
            let words = ready.map(|ready| format!("{}: {}", ready["reason"], ready["message"]));
            return Err(format!("{name} is not Ready: {}", words.unwrap_or_default()));
        }
        let Some(time) = renewed.get(name) else { return Err(format!("{name} has no Lease")) };
        // A clock that is behind makes it negative.
        let age = Duration::try_from(now.duration_since(*time)).unwrap_or_default();
        if age > OLDEST_HEARTBEAT {
            return Err(format!("the Lease of {name} was renewed {} s ago", age.as_secs()));
        }
        Ok(age)
    };
    nodes.iter().map(judge).collect()
}

/// The pods that there were, by UID.
#[derive(Debug, Default)]
struct Pods(BTreeMap<String, Pod>);

#[derive(Debug)]
struct Pod {
    name: String,
    node: String,
    restarts: u64,
}

impl Pods {
    /// What has happened to them since the last time; the first time there is nothing to compare with. Each thing is told
    /// once.
    fn judge(&mut self, list: &[Value], spared: &Spared) -> Vec<String> {
        let now: BTreeMap<String, Pod> = list
            .iter()
            .map(|pod| {
                let word = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
                let containers = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
                let restarts = containers.iter().filter_map(|container| container["restartCount"].as_u64()).sum();
                let name = format!("{}/{}", word("namespace"), word("name"));
                let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
                (word("uid"), Pod { name, node, restarts })
            })
            .collect();
        let expected = self.0.iter().filter(|(_, pod)| !spared.has(&pod.node));
        let complaints = expected.filter_map(|(uid, Pod { name, restarts, .. })| match now.get(uid) {
            None => Some(format!("{name} is gone or was replaced")),
            Some(pod) if pod.restarts > *restarts => Some(format!("{name} was restarted")),
            Some(_) => None,
        });
        let complaints = complaints.collect();
        self.0 = now;
        complaints
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "m"}]}})
    }

    #[test]
    fn a_node_beats_while_it_is_ready_and_its_lease_is_young() {
        let now: Timestamp = "2026-11-23T12:01:00Z".parse().unwrap();
        let lease = |name: &str, time: &str| json!({"metadata": {"name": name}, "spec": {"renewTime": time}});
        let leases = [lease("a", "2026-11-23T12:00:25.5Z"), lease("b", "2026-11-23T12:00:05Z")];
        let nodes = [node("a", "True"), node("b", "True"), node("c", "True"), node("a", "Unknown")];
        let told = judge_heartbeats(&nodes, &leases, now);
        assert_eq!(told[0], Ok(Duration::from_millis(34_500)));
        assert_eq!(told[1], Err("the Lease of b was renewed 55 s ago".to_owned()));
        assert_eq!(told[2], Err("c has no Lease".to_owned()));
        assert_eq!(told[3], Err("a is not Ready: \"R\": \"m\"".to_owned()));
    }

    #[test]
    fn a_pod_that_was_restarted_or_replaced_is_told_once() {
        let pod = |uid: &str, restarts: u64| {
            json!({"metadata": {"uid": uid, "namespace": "n", "name": "p"}, "spec": {"nodeName": "worker1"},
                "status": {"containerStatuses": [{"restartCount": restarts}, {"restartCount": 0}]}})
        };
        let (mut pods, spared) = (Pods::default(), Spared::default());
        assert!(pods.judge(&[pod("1", 2), pod("2", 0)], &spared).is_empty());
        assert_eq!(pods.judge(&[pod("1", 3), pod("2", 0)], &spared), ["n/p was restarted"]);
        assert_eq!(pods.judge(&[pod("1", 3), pod("3", 0)], &spared), ["n/p is gone or was replaced"]);
        assert!(pods.judge(&[pod("1", 3), pod("3", 0), pod("4", 0)], &spared).is_empty());
        spared.set("worker1", true);
        assert!(pods.judge(&[pod("1", 4)], &spared).is_empty());
    }
}
