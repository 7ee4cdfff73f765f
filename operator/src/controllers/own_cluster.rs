//! The cluster that Keyplane itself runs in: its kubelets' requests, judged by the one policy that has an approver.
//!
//! Only policies in Keyplane's own namespace count. Who may write a `CertificatePolicy` in some other namespace has a say
//! in ClusterSpecs there, and none in this cluster.

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

use super::sessions::signing_requests::SigningRequests;
use super::sessions::verdicts::Place;
use super::sessions::watched::{WatchedNode, WatchedRequest};
use crate::metrics::Metrics;
use keyplane_client::events::Events;
use keyplane_core::approval::{Approver, Terms};

/// How long one batch of verdicts may take: a few hundred requests at most.
const WORK_TIMEOUT: Duration = Duration::from_mins(2);

/// How long to wait before the watches are begun anew.
const PAUSE: Duration = Duration::from_secs(5);

/// How many objects of a list are read at once where the API server does not send them one by one. A Node has some 10 kB,
/// and a page of them is in memory three times while it is read.
const PAGE: u32 = 50;

type Guarded = DeserializeGuard<CertificatePolicy>;

/// What is needed.
#[derive(Clone)]
pub struct OwnCluster {
    /// The cluster.
    pub client: Client,
    /// The namespace whose policies count.
    pub namespace: String,
    /// Events on the requests.
    pub events: Events,
    /// Counters.
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
        // Without pages the first lists are sooner there and take less memory.
        let streamed = AtomicBool::new(true);
        let mut selected: Option<Selected> = None;
        loop {
            let next = {
                let change = next_selection(policies.as_mut(), &mut known, selected.as_ref());
                match &selected {
                    None => change.await,
                    Some(policy) => tokio::select! {
                        next = change => next,
                        () = self.judge(policy, &streamed) => {
                            sleep(PAUSE).await;
                            continue;
                        }
                    },
                }
            };
            if let Some(gone) = selected.filter(|gone| next.as_ref().is_none_or(|next| next.name != gone.name)) {
                self.metrics.forget(&self.namespace, &gone.name);
            }
            let policy = next.as_ref().map(|policy| policy.name.as_str());
            tracing::info!(
                policy,
                "the policy in force for Keyplane's own cluster; without one nothing is judged there"
            );
            selected = next;
        }
    }

    /// Watches and judges until something fails.
    async fn judge(&self, policy: &Selected, streamed: &AtomicBool) {
        let place = Place {
            labels: [self.namespace.clone(), policy.name.clone()],
            policy: format!("CertificatePolicy {}", policy.name),
            about: None,
        };
        let approver = Approver::of_policy(&policy.approver, policy.terms.clone());
        let mut judge =
            SigningRequests::new(self.client.clone(), approver, place, self.events.clone(), self.metrics.clone());
        let listed = |config: watcher::Config| {
            if streamed.load(Ordering::Relaxed) { config.streaming_lists() } else { config.page_size(PAGE) }
        };
        let nodes = Api::<WatchedNode>::all(self.client.clone());
        let mut nodes = pin!(watcher(nodes, listed(watcher::Config::default())).default_backoff());
        let requests = Api::<WatchedRequest>::all(self.client.clone());
        let mut requests = pin!(watcher(requests, listed(judge.watch_config())).default_backoff());
        loop {
            tokio::select! {
                event = nodes.next() => match event {
                    Some(Ok(event)) => judge.node_event(&event),
                    Some(Err(error)) if refuses_streams(&error) && streamed.swap(false, Ordering::Relaxed) => return,
                    Some(Err(error)) => tracing::warn!(%error, "watching Nodes"),
                    None => return,
                },
                event = requests.next() => match event {
                    Some(Ok(event)) => judge.request_event(event),
                    Some(Err(error)) => tracing::warn!(%error, "watching requests"),
                    None => return,
                },
                () = sleep_until(judge.wake()) => {
                    if timeout(WORK_TIMEOUT, judge.work(Timestamp::now())).await.is_err() {
                        tracing::warn!("the API server does not answer: beginning anew");
                        return;
                    }
                }
            }
        }
    }
}

/// Whether the API server does not send lists as streams: before Kubernetes 1.34 that is off by default (`WatchList`), and
/// the request is then invalid.
fn refuses_streams(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 422 || status.code == 400,
        _ => false,
    }
}

/// The policies of the namespace, as the watch tells of them.
#[derive(Default)]
struct Policies {
    known: BTreeMap<String, Guarded>,
    list_under_way: Option<BTreeMap<String, Guarded>>,
    listed: bool,
}

impl Policies {
    fn take(&mut self, event: Event<Guarded>) {
        match event {
            Event::Init => self.list_under_way = Some(BTreeMap::new()),
            Event::InitApply(policy) => {
                self.list_under_way.get_or_insert_default().insert(policy.name_any(), policy);
            }
            Event::InitDone => {
                self.known = self.list_under_way.take().unwrap_or_default();
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

    /// The one policy with an approver. With two of them nobody knows which one a person means; one that can't be read may
    /// be a second.
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

/// Waits until another policy is in force.
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
                if known.listed && known.list_under_way.is_none() && next.as_ref() != current {
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
    fn the_one_policy_with_an_approver_is_in_force_and_of_two_none() {
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
    fn an_api_server_that_streams_no_lists_is_told_from_one_that_is_away() {
        let answer = |code: u16| {
            let status = serde_json::from_value(json!({"status": "Failure", "code": code})).unwrap();
            watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(refuses_streams(&answer(422)));
        assert!(!refuses_streams(&answer(403)));
        assert!(!refuses_streams(&answer(503)));
    }

    #[test]
    fn a_policy_that_cannot_be_read_may_be_a_second_one() {
        let mut policies = Policies::default();
        policies.take(Event::Apply(policy("b", true)));
        let unreadable = json!({"metadata": {"name": "x"}, "spec": {"approver": 7}});
        policies.take(Event::Apply(serde_json::from_value(unreadable).unwrap()));
        assert_eq!(selected(&policies), None);
    }
}
