//! Re-encrypts stored objects with writes that change nothing (storage migration). An API server that reads an object
//! with another key than its first one writes the object even without a change (k8s.io/apiserver, `GuaranteedUpdate` in
//! `storage/etcd3/store.go`).
//!
//! Keyplane reads only metadata: it lists metadata, and sends patches that contain only the UID and the resource
//! version. On a conflict, the concurrent write has already re-encrypted the object.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiGroup, Scope};
use kube::error::DiscoveryError;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use keyplane_client::{FIELD_MANAGER, causes};
use keyplane_core::encryption::Progress;

/// Page size of lists.
const PAGE: u32 = 500;
/// Interval between writes: fifty per second, which is no more than one busy controller.
const PACE: Duration = Duration::from_millis(20);

/// A storage migration of some resources.
pub(super) struct StorageMigrator<'a> {
    client: Client,
    resources: &'a BTreeSet<String>,
    pace: Interval,
}

impl<'a> StorageMigrator<'a> {
    /// Creates a migration.
    pub(super) fn new(client: Client, resources: &'a BTreeSet<String>) -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { client, resources, pace }
    }

    /// Writes the remaining objects, and reports the progress after each page.
    pub(super) async fn migrate(
        &mut self,
        progress: &mut Progress,
        mut report: impl FnMut(&Progress),
    ) -> Result<(), String> {
        for resource in self.resources {
            if progress.done.contains(resource) {
                continue;
            }
            // A resource without an API has no objects.
            if let Some((api_resource, scope)) = self.find(resource).await? {
                self.migrate_resource(resource, &api_resource, &scope, progress, &mut report).await?;
            } else {
                tracing::warn!(resource, "skipped a resource that the API server does not serve");
            }
            progress.done.insert(resource.clone());
            progress.last = None;
            report(progress);
        }
        Ok(())
    }

    async fn find(&self, resource: &str) -> Result<Option<(ApiResource, Scope)>, String> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ApiGroup::CORE_GROUP));
        let group = match kube::discovery::group(&self.client, group).await {
            Ok(group) => group,
            Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => return Ok(None),
            Err(error) => return Err(format!("{resource}: {}", describe(&error))),
        };
        let found = group.recommended_resources().into_iter().find(|(found, _)| found.plural == plural);
        Ok(found.map(|(found, capabilities)| (found, capabilities.scope)))
    }

    /// Migrates one resource. The API server lists objects in the order of namespaces and names, so the last migrated
    /// object is the position to continue from.
    async fn migrate_resource(
        &mut self,
        resource: &str,
        api_resource: &ApiResource,
        scope: &Scope,
        progress: &mut Progress,
        report: &mut impl FnMut(&Progress),
    ) -> Result<(), String> {
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), api_resource);
        let mut token: Option<String> = None;
        loop {
            let mut page = ListParams::default().limit(PAGE);
            page.continue_token = token.take();
            let is_first = page.continue_token.is_none();
            let list = match all.list_metadata(&page).await {
                Ok(list) => list,
                // The list has expired: it is restarted, and migrated objects are skipped.
                Err(kube::Error::Api(status)) if status.code == 410 && !is_first => continue,
                Err(error) => return Err(format!("{resource}: {}", describe(&error))),
            };
            for object in &list.items {
                let place = place(object);
                let done = progress.last.as_ref().is_some_and(|(of, last)| of == resource && place <= *last);
                if done {
                    continue;
                }
                self.pace.tick().await;
                let api = match (scope, object.namespace()) {
                    (Scope::Namespaced, Some(namespace)) => {
                        Api::namespaced_with(self.client.clone(), &namespace, api_resource)
                    }
                    _ => all.clone(),
                };
                if write(&api, object).await.map_err(|why| format!("{resource} {place}: {why}"))? {
                    progress.objects += 1;
                }
                progress.last = Some((resource.to_owned(), place));
            }
            report(progress);
            token = list.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(());
            }
        }
    }
}

fn place(object: &PartialObjectMeta<DynamicObject>) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// Writes an object; returns whether this write has re-encrypted it.
async fn write(api: &Api<DynamicObject>, object: &PartialObjectMeta<DynamicObject>) -> Result<bool, String> {
    let seen = json!({"metadata": {"uid": object.uid(), "resourceVersion": object.resource_version()}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(&object.name_any(), &params, &Patch::Merge(seen)).await {
        Ok(_) => Ok(true),
        // The object was deleted, or another client has written it.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
        Err(error) => Err(describe(&error)),
    }
}

/// Describes an error. The message of an admission webhook may quote the object, so only the status is included.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        other => causes(other),
    }
}
