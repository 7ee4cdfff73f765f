//! The add-ons of a target: applied, mended, taken away, and watched.
//!
//! What runs the Pods is watched by its name, so that a change is seen at once; the few other objects are looked at
//! when the session looks at everything that it has put into the target.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{SelectAll, Stream, StreamExt, pending, select_all};
use kube::api::{DeleteParams, Preconditions};
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};

use super::preparation::{Unavailable, api, put};
use super::{Brief, credentials};
use keyplane_client::{backoff, causes};
use keyplane_core::addons::{Addon, AddonFacts, Judgement, Rollout, is_ours, is_to_be_left, judge};
use keyplane_core::target_objects::TargetObject;

/// How long after a change that is not ours it is mended: who changes one thing often changes another one next.
const MEND_DELAY: Duration = Duration::from_secs(1);
/// Failures that are not told yet: rights that were granted a moment ago are not known to every API server at once.
const SILENT_FAILURES: u32 = 3;
/// The longest wait before what failed is tried again.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What was done, for Events.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) applied: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// A change of a workload.
pub(super) type Change = (Addon, Result<Event<DynamicObject>, watcher::Error>);

/// The add-ons of one target, for as long as the session is connected.
pub(super) struct Addons<'a> {
    client: Client,
    brief: &'a Brief,
    facts: BTreeMap<Addon, AddonFacts>,
    rollouts: BTreeMap<Addon, Rollout>,
    failures: u32,
    looked: bool,
}

impl<'a> Addons<'a> {
    pub(super) fn new(client: Client, brief: &'a Brief) -> Self {
        Self { client, brief, facts: BTreeMap::new(), rollouts: BTreeMap::new(), failures: 0, looked: false }
    }

    /// What runs the Pods of the add-ons that are switched on. The stream never ends.
    pub(super) fn changes(&self) -> SelectAll<Pin<Box<dyn Stream<Item = Change> + Send>>> {
        let mut streams: Vec<Pin<Box<dyn Stream<Item = Change> + Send>>> = vec![pending().boxed()];
        for addon in Addon::ALL.into_iter().filter(|addon| addon.is_enabled(&self.brief.cluster)) {
            let Some(workload) = addon.workload(&self.brief.cluster, self.brief.addons) else { continue };
            let name = workload.object.name_any();
            let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let changes = watcher(api(&self.client, &workload), by_name).default_backoff();
            streams.push(changes.map(move |change| (addon, change)).boxed());
        }
        select_all(streams)
    }

    /// Keeps what a change says; gives back how long to wait before everything is looked at again, if it is to be.
    pub(super) fn take(&mut self, (addon, change): Change) -> Option<Duration> {
        let found = match change {
            Ok(Event::Apply(found) | Event::InitApply(found)) => found,
            Ok(Event::Delete(_)) => {
                self.rollouts.remove(&addon);
                return Some(MEND_DELAY);
            }
            Ok(Event::Init | Event::InitDone) => return None,
            Err(error) => {
                tracing::debug!(addon = addon.name(), %error, "watching an add-on");
                return None;
            }
        };
        let workload = addon.workload(&self.brief.cluster, self.brief.addons)?;
        let rollout = Rollout::of(&workload.resource.kind, &found.data, found.metadata.generation);
        self.rollouts.insert(addon, rollout);
        // Before the first look there is nothing to compare with: it comes by itself.
        let known = self.facts.get(&addon)?;
        let name = workload.describe();
        let is_news = match (judge(workload, Some(&found)), known) {
            (Judgement::Foreign, AddonFacts::Foreign(listed)) => !listed.contains(&name),
            (Judgement::Foreign, _) => true,
            (_, AddonFacts::Foreign(listed)) => listed.contains(&name),
            (Judgement::Apply(_), _) => true,
            (Judgement::Keep | Judgement::Leave, _) => false,
        };
        is_news.then_some(MEND_DELAY)
    }

    /// What is known by now; nothing before there was a first look.
    pub(super) fn facts(&self) -> Option<BTreeMap<Addon, AddonFacts>> {
        let mut facts = self.facts.clone();
        for (addon, seen) in &self.rollouts {
            if let Some(AddonFacts::Applied { rollout, .. }) = facts.get_mut(addon) {
                *rollout = Some(*seen);
            }
        }
        self.looked.then_some(facts)
    }

    /// Looks at every object, applies what is missing or different, and takes away what is switched off. Gives back what
    /// was done, and how long to wait if something failed.
    pub(super) async fn look_after(&mut self, management: &Client) -> (Done, Option<Duration>) {
        let mut done = Done::default();
        let mut failed = BTreeMap::new();
        for addon in Addon::ALL {
            let outcome = if addon.is_enabled(&self.brief.cluster) {
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
            self.looked = true;
            return (done, None);
        }
        self.failures += 1;
        for (addon, problem) in failed {
            tracing::info!(addon = addon.name(), problem, "add-on not in place");
            if self.failures > SILENT_FAILURES {
                self.looked = true;
                self.facts.insert(addon, AddonFacts::Failed(problem));
            }
        }
        (done, Some(backoff::delay(self.failures).min(LONGEST_WAIT)))
    }

    async fn install(&self, addon: Addon, management: &Client, done: &mut Done) -> Result<AddonFacts, String> {
        let (mut to_apply, mut foreign, mut left) = (vec![], vec![], vec![]);
        for wanted in addon.objects(&self.brief.cluster, self.brief.addons) {
            let found = self.get(&wanted).await?;
            let name = wanted.describe();
            match judge(wanted, found.as_ref()) {
                Judgement::Keep => {}
                Judgement::Leave => left.push(name),
                Judgement::Foreign => foreign.push(name),
                Judgement::Apply(wanted) => to_apply.push(*wanted),
            }
        }
        if !foreign.is_empty() {
            return Ok(AddonFacts::Foreign(foreign));
        }
        let told = |unavailable: Unavailable| unavailable.message;
        let mut privileged = None;
        for wanted in to_apply {
            let client = match (wanted.gives_rights(), &privileged) {
                (false, _) => &self.client,
                (true, Some(client)) => client,
                (true, None) => {
                    let client = credentials::super_admin(management, self.brief).await.map_err(told)?;
                    privileged.insert(client)
                }
            };
            put(client, self.brief, &wanted).await.map_err(told)?;
            done.applied.push(wanted.describe());
        }
        Ok(AddonFacts::Applied { rollout: None, left })
    }

    /// Takes away what is Keyplane's, Pods first. A namespace stays: others may have put something into it.
    async fn remove(&self, addon: Addon, done: &mut Done) -> Result<(), String> {
        let mut objects = addon.objects(&self.brief.cluster, self.brief.addons);
        objects.retain(|object| object.resource.kind != "Namespace");
        for object in objects.into_iter().rev() {
            let Some(found) = self.get(&object).await? else { continue };
            if !is_ours(&found) || is_to_be_left(&found) {
                continue;
            }
            // What has been made anew in the meantime is another one.
            let seen = Preconditions { uid: found.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(seen), ..DeleteParams::background() };
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
