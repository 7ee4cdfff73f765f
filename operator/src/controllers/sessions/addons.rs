//! Add-ons of a target cluster: applies, repairs, removes and watches them.
//!
//! The workload of each add-on is watched by name, so that a change is seen at once. The few other objects are checked
//! periodically.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{SelectAll, Stream, StreamExt, pending, select_all};
use kube::api::{DeleteParams, Preconditions};
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};

use super::bootstrap::{api, put};
use super::unavailable::Unavailable;
use super::{SessionSpec, credentials};
use keyplane_client::{backoff, causes};
use keyplane_core::addons::{Addon, AddonState, ObjectAction, WorkloadRollout, action_for, is_ours, is_unmanaged};
use keyplane_core::target_objects::TargetObject;

/// Delay between a foreign change and its repair, because changes often come in groups.
const REPAIR_DELAY: Duration = Duration::from_secs(1);
/// Failures that are not reported yet: new permissions do not reach every API server at once.
const SILENT_FAILURES: u32 = 3;
/// The longest delay before a retry.
const MAX_RETRY_DELAY: Duration = Duration::from_mins(1);

/// Changes, for Events.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) applied: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// A change of a workload.
pub(super) type Change = (Addon, Result<Event<DynamicObject>, watcher::Error>);

/// The add-ons of one target cluster, while the session is connected.
pub(super) struct Addons<'a> {
    client: Client,
    spec: &'a SessionSpec,
    facts: BTreeMap<Addon, AddonState>,
    rollouts: BTreeMap<Addon, WorkloadRollout>,
    failures: u32,
    reconciled: bool,
}

impl<'a> Addons<'a> {
    pub(super) fn new(client: Client, spec: &'a SessionSpec) -> Self {
        Self { client, spec, facts: BTreeMap::new(), rollouts: BTreeMap::new(), failures: 0, reconciled: false }
    }

    /// Watches the workloads of the enabled add-ons. The stream never ends.
    pub(super) fn changes(&self) -> SelectAll<Pin<Box<dyn Stream<Item = Change> + Send>>> {
        let mut streams: Vec<Pin<Box<dyn Stream<Item = Change> + Send>>> = vec![pending().boxed()];
        for addon in Addon::ALL.into_iter().filter(|addon| addon.is_enabled(&self.spec.cluster)) {
            let Some(workload) = addon.workload(&self.spec.cluster, self.spec.addons) else { continue };
            let name = workload.object.name_any();
            let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let changes = watcher(api(&self.client, &workload), by_name).default_backoff();
            streams.push(changes.map(move |change| (addon, change)).boxed());
        }
        select_all(streams)
    }

    /// Keeps a change; returns the delay until the reconciliation, if one is needed.
    pub(super) fn take(&mut self, (addon, change): Change) -> Option<Duration> {
        let found = match change {
            Ok(Event::Apply(found) | Event::InitApply(found)) => found,
            Ok(Event::Delete(_)) => {
                self.rollouts.remove(&addon);
                return Some(REPAIR_DELAY);
            }
            Ok(Event::Init | Event::InitDone) => return None,
            Err(error) => {
                tracing::debug!(addon = addon.name(), %error, "watching an add-on");
                return None;
            }
        };
        let workload = addon.workload(&self.spec.cluster, self.spec.addons)?;
        let rollout = WorkloadRollout::of(&workload.resource.kind, &found.data, found.metadata.generation);
        self.rollouts.insert(addon, rollout);
        // Before the first reconciliation, which needs no trigger, there is no state to compare with.
        let known = self.facts.get(&addon)?;
        let name = workload.describe();
        let needs_reconciliation = match (action_for(workload, Some(&found)), known) {
            (ObjectAction::Foreign, AddonState::Foreign(listed)) => !listed.contains(&name),
            (ObjectAction::Foreign, _) => true,
            (_, AddonState::Foreign(listed)) => listed.contains(&name),
            (ObjectAction::Apply(_), _) => true,
            (ObjectAction::Keep | ObjectAction::Leave, _) => false,
        };
        needs_reconciliation.then_some(REPAIR_DELAY)
    }

    /// Returns the observed state; `None` before the first reconciliation.
    pub(super) fn facts(&self) -> Option<BTreeMap<Addon, AddonState>> {
        let mut facts = self.facts.clone();
        for (addon, seen) in &self.rollouts {
            if let Some(AddonState::Applied { rollout, .. }) = facts.get_mut(addon) {
                *rollout = Some(*seen);
            }
        }
        self.reconciled.then_some(facts)
    }

    /// Applies objects that are missing or differ, and removes disabled add-ons. Returns the changes, and the delay of
    /// the retry after a failure.
    pub(super) async fn reconcile(&mut self, management: &Client) -> (Done, Option<Duration>) {
        let mut done = Done::default();
        let mut failed = BTreeMap::new();
        for addon in Addon::ALL {
            let outcome = if addon.is_enabled(&self.spec.cluster) {
                self.install(addon, management, &mut done).await.map(Some)
            } else {
                self.remove(addon, &mut done).await.map(|()| None)
            };
            match outcome {
                Ok(Some(facts)) => _ = self.facts.insert(addon, facts),
                Ok(None) => _ = self.facts.remove(&addon),
                Err(problem) => _ = failed.insert(addon, problem),
            }
        }
        if failed.is_empty() {
            self.failures = 0;
            self.reconciled = true;
            return (done, None);
        }
        self.failures += 1;
        for (addon, problem) in failed {
            tracing::info!(addon = addon.name(), problem, "applying the add-on failed");
            if self.failures > SILENT_FAILURES {
                self.reconciled = true;
                self.facts.insert(addon, AddonState::Failed(problem));
            }
        }
        (done, Some(backoff::delay(self.failures).min(MAX_RETRY_DELAY)))
    }

    async fn install(&self, addon: Addon, management: &Client, done: &mut Done) -> Result<AddonState, String> {
        let (mut to_apply, mut foreign, mut unmanaged) = (vec![], vec![], vec![]);
        for wanted in addon.objects(&self.spec.cluster, self.spec.addons) {
            let found = self.get(&wanted).await?;
            let name = wanted.describe();
            match action_for(wanted, found.as_ref()) {
                ObjectAction::Keep => {}
                ObjectAction::Leave => unmanaged.push(name),
                ObjectAction::Foreign => foreign.push(name),
                ObjectAction::Apply(wanted) => to_apply.push(*wanted),
            }
        }
        if !foreign.is_empty() {
            return Ok(AddonState::Foreign(foreign));
        }
        let message = |unavailable: Unavailable| unavailable.message;
        let mut privileged = None;
        for wanted in to_apply {
            let client = match (wanted.grants_permissions(), &privileged) {
                (false, _) => &self.client,
                (true, Some(client)) => client,
                (true, None) => {
                    let client = credentials::super_admin(management, self.spec).await.map_err(message)?;
                    privileged.insert(client)
                }
            };
            put(client, self.spec, &wanted).await.map_err(message)?;
            done.applied.push(wanted.describe());
        }
        Ok(AddonState::Applied { rollout: None, unmanaged })
    }

    /// Deletes Keyplane's objects of an add-on, workloads first. A namespace stays, because it may contain other
    /// objects.
    async fn remove(&self, addon: Addon, done: &mut Done) -> Result<(), String> {
        let mut objects = addon.objects(&self.spec.cluster, self.spec.addons);
        objects.retain(|object| object.resource.kind != "Namespace");
        for object in objects.into_iter().rev() {
            let Some(found) = self.get(&object).await? else { continue };
            if !is_ours(&found) || is_unmanaged(&found) {
                continue;
            }
            // The UID protects an object that was recreated meanwhile.
            let preconditions = Preconditions { uid: found.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            match api(&self.client, &object).delete(&found.name_any(), &parameters).await {
                Ok(_) => done.removed.push(object.describe()),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(format!("{}: {}", object.describe(), causes(&error))),
            }
        }
        Ok(())
    }

    async fn get(&self, object: &TargetObject) -> Result<Option<DynamicObject>, String> {
        let found = api(&self.client, object).get_opt(&object.object.name_any()).await;
        found.map_err(|error| format!("{}: {}", object.describe(), causes(&error)))
    }
}
