//! The CSR approver of the management cluster: evaluates kubelets' CSRs with the only policy that has `spec.approver`.
//!
//! Only policies in Keyplane's own namespace apply. A user who can write a `CertificatePolicy` in another namespace
//! influences ClusterSpecs of that namespace, but not the management cluster.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ApproverSpec, CertificatePolicy};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::sessions::projections::{WatchedNode, WatchedRequest};
use super::sessions::signing_requests::SigningRequests;
use super::sessions::verdicts::Place;
use crate::metrics::Metrics;
use keyplane_client::events::Events;
use keyplane_core::approval::{Approver, Terms};

/// Time for one batch of verdicts: a few hundred requests at most.
const WORK_TIMEOUT: Duration = Duration::from_mins(2);

/// Delay before the watches are restarted.
const PAUSE: Duration = Duration::from_secs(5);

/// Page size of lists, if the API server does not stream them. A Node has about 10 kB, and a page is in memory three
/// times while it is parsed.
const PAGE: u32 = 50;

type Guarded = DeserializeGuard<CertificatePolicy>;

/// The approver of the management cluster.
#[derive(Clone)]
pub struct OwnCluster {
    /// Client of the management cluster.
    pub client: Client,
    /// The namespace whose policies apply.
    pub namespace: String,
    /// Recorder of Events on the CSRs.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq)]
struct Selected {
    name: String,
    approver: ApproverSpec,
    terms: Terms,
}

impl OwnCluster {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        Box::pin(stop.run_until_cancelled(self.follow_policies())).await;
    }

    async fn follow_policies(self) {
        let policies = Api::<Guarded>::namespaced(self.client.clone(), &self.namespace);
        let mut policies = pin!(watcher(policies, watcher::Config::default()).default_backoff());
        let mut known = Policies::default();
        // Streamed lists are faster and need less memory than pages.
        let streamed = AtomicBool::new(true);
        let mut selected: Option<Selected> = None;
        loop {
            let next = {
                let change = next_selection(policies.as_mut(), &mut known, selected.as_ref());
                match &selected {
                    None => change.await,
                    Some(policy) => tokio::select! {
                        next = change => next,
                        () = self.evaluate_csrs(policy, &streamed) => {
                            sleep(PAUSE).await;
                            continue;
                        }
                    },
                }
            };
            if let Some(old) = selected.filter(|old| next.as_ref().is_none_or(|next| next.name != old.name)) {
                self.metrics.forget(&self.namespace, &old.name);
            }
            let policy = next.as_ref().map(|policy| policy.name.as_str());
            tracing::info!(
                policy,
                "selected the policy for the management cluster; without a policy, no CSR of this cluster is evaluated"
            );
            selected = next;
        }
    }

    /// Watches and evaluates CSRs until a watch ends or a request times out.
    async fn evaluate_csrs(&self, policy: &Selected, streamed: &AtomicBool) {
        let place = Place {
            labels: [self.namespace.clone(), policy.name.clone()],
            policy: format!("CertificatePolicy {}", policy.name),
            about: None,
        };
        let approver = Approver::of_policy(&policy.approver, policy.terms.clone());
        let mut approver =
            SigningRequests::new(self.client.clone(), approver, place, self.events.clone(), self.metrics.clone());
        let listed = |config: watcher::Config| {
            if streamed.load(Ordering::Relaxed) { config.streaming_lists() } else { config.page_size(PAGE) }
        };
        let nodes = Api::<WatchedNode>::all(self.client.clone());
        let mut nodes = pin!(watcher(nodes, listed(watcher::Config::default())).default_backoff());
        let requests = Api::<WatchedRequest>::all(self.client.clone());
        let mut requests = pin!(watcher(requests, listed(approver.watch_config())).default_backoff());
        loop {
            tokio::select! {
                event = nodes.next() => match event {
                    Some(Ok(event)) => approver.node_event(&event),
                    Some(Err(error)) if rejects_streams(&error) && streamed.swap(false, Ordering::Relaxed) => return,
                    Some(Err(error)) => tracing::warn!(%error, "watching Nodes"),
                    None => return,
                },
                event = requests.next() => match event {
                    Some(Ok(event)) => approver.request_event(event),
                    Some(Err(error)) => tracing::warn!(%error, "watching CSRs"),
                    None => return,
                },
                () = sleep_until(approver.wake()) => {
                    if timeout(WORK_TIMEOUT, approver.work(Timestamp::now())).await.is_err() {
                        tracing::warn!("the API server does not answer: restarting the watches");
                        return;
                    }
                }
            }
        }
    }
}

/// Returns whether the API server does not support streamed lists: before Kubernetes 1.34 the feature `WatchList` is
/// off by default, and the request is invalid.
fn rejects_streams(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 422 || status.code == 400,
        _ => false,
    }
}

/// Cache of the policies of the namespace.
#[derive(Default)]
struct Policies {
    known: BTreeMap<String, Guarded>,
    pending_list: Option<BTreeMap<String, Guarded>>,
    listed: bool,
}

impl Policies {
    fn take(&mut self, event: Event<Guarded>) {
        match event {
            Event::Init => self.pending_list = Some(BTreeMap::new()),
            Event::InitApply(policy) => {
                self.pending_list.get_or_insert_default().insert(policy.name_any(), policy);
            }
            Event::InitDone => {
                self.known = self.pending_list.take().unwrap_or_default();
                self.listed = true;
            }
            Event::Apply(policy) => {
                self.known.insert(policy.name_any(), policy);
            }
            Event::Delete(policy) => {
                self.known.remove(&policy.name_any());
            }
        }
    }

    /// Returns the only policy with `spec.approver`. With two such policies the choice would be ambiguous, and a policy
    /// that can't be parsed may be a second one: then none is selected.
    fn select(&self) -> Option<Selected> {
        let mut selected = None;
        for policy in self.known.values() {
            let Ok(policy) = &policy.0 else { return None };
            let Some(approver) = &policy.spec.approver else { continue };
            let terms = Terms::parse(&policy.spec).ok()?;
            let this = Selected { name: policy.name_any(), approver: approver.clone(), terms };
            if selected.replace(this).is_some() {
                return None;
            }
        }
        selected
    }
}

/// Waits until the selected policy changes.
async fn next_selection<S>(
    mut policies: Pin<&mut S>,
    known: &mut Policies,
    current: Option<&Selected>,
) -> Option<Selected>
where
    S: Stream<Item = Result<Event<Guarded>, watcher::Error>>,
{
    loop {
        match policies.next().await {
            Some(Ok(event)) => {
                known.take(event);
                let next = known.select();
                if known.listed && known.pending_list.is_none() && next.as_ref() != current {
                    return next;
                }
            }
            Some(Err(error)) => tracing::warn!(%error, "watching CertificatePolicies"),
            None => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(name: &str, approver: bool) -> Guarded {
        let mut policy = json!({"metadata": {"name": name}, "spec": {}});
        if approver {
            policy["spec"]["approver"] = json!({
                "nodes": [{"namePattern": "*", "addressCIDRs": ["10.0.0.0/16"]}],
                "reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example"]},
            });
        }
        serde_json::from_value(policy).unwrap()
    }

    fn selected(policies: &Policies) -> Option<String> {
        policies.select().map(|selected| selected.name)
    }

    #[test]
    fn selects_only_policy_with_approver_and_none_of_two() {
        let mut policies = Policies::default();
        policies.take(Event::Apply(policy("a", false)));
        assert_eq!(selected(&policies), None);
        policies.take(Event::Apply(policy("b", true)));
        assert_eq!(selected(&policies).as_deref(), Some("b"));
        policies.take(Event::Apply(policy("c", true)));
        assert_eq!(selected(&policies), None);
        policies.take(Event::Delete(policy("b", true)));
        assert_eq!(selected(&policies).as_deref(), Some("c"));
    }

    #[test]
    fn distinguishes_unsupported_streams_from_other_errors() {
        let answer = |code: u16| {
            let status = serde_json::from_value(json!({"status": "Failure", "code": code})).unwrap();
            watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(rejects_streams(&answer(422)));
        assert!(!rejects_streams(&answer(403)));
        assert!(!rejects_streams(&answer(503)));
    }

    #[test]
    fn unreadable_policy_counts_as_second_one() {
        let mut policies = Policies::default();
        policies.take(Event::Apply(policy("b", true)));
        let unreadable = json!({"metadata": {"name": "x"}, "spec": {"approver": 7}});
        policies.take(Event::Apply(serde_json::from_value(unreadable).unwrap()));
        assert_eq!(selected(&policies), None);
    }
}
